"""The Deep3DFace network: names, heads, batches, files; coefficients and their places."""

import json
from pathlib import Path

import pytest
import torch

from data_preprocess.bfm_coefficients import BfmCoefficients
from data_preprocess.bfm_regressor import BfmRegressor, align_face, load_bfm_regressor, reconstruct_faces
from portrait4d.files.errors import AssetMissingError, InputFileError
from portrait4d.models.pretrained import registry
from tests.golden.weights import fill
from tests.helpers.hash_fill import hash_tensor

MANIFEST = Path(__file__).resolve().parents[2] / "golden" / "manifest-deep3d.json"
SIZES = {"id": 80, "exp": 64, "tex": 80, "angle": 3, "gamma": 27, "trans": 3}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like the published one: the network beside the state of a training run."""
    path = tmp_path_factory.mktemp("weights") / "epoch_20.pth"
    network = {name: torch.from_numpy(array) for name, array in fill(MANIFEST).items()}
    torch.save({"net_recon": network, "opt_00": {"state": {}}, "sched_00": {"last_epoch": 20}}, path)
    return path


@pytest.fixture(scope="module")
def network(checkpoint: Path) -> BfmRegressor:
    return load_bfm_regressor(checkpoint)


def test_names_are_the_published_ones() -> None:
    manifest = json.loads(MANIFEST.read_text())
    shapes = {name: tuple(shape) for name, shape, *_ in manifest["filled"] + manifest["derived"]}
    with torch.device("meta"):
        network = BfmRegressor()
    assert {name: tuple(value.shape) for name, value in network.state_dict().items()} == shapes
    assert len(shapes) == 332  # preprocess-networks.md §4.1
    assert sum(parameter.numel() for parameter in network.parameters()) == 24_034_625


def test_heads_give_their_coefficients(network: BfmRegressor) -> None:
    crops = hash_tensor(0, (1, 3, 224, 224))
    coefficients, features = network(crops), network.features(crops)
    heads = [head(features).flatten(1) for head in network.final_layers]
    assert torch.equal(coefficients.angle_rad, heads[3]) and torch.equal(coefficients.lighting, heads[4])
    assert torch.equal(coefficients.translation, torch.cat(heads[5:], 1))


def test_black_crops_reach_the_network_as_zeros(network: BfmRegressor) -> None:
    seen = []
    handle = network.backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    network(torch.cat([torch.full((1, 3, 224, 224), -1.0), torch.ones(1, 3, 224, 224)]))
    handle.remove()
    assert (seen[0][0] == 0).all() and (seen[0][1] == 1).all()


def test_batch_gives_what_single_faces_give(network: BfmRegressor) -> None:
    images = [hash_tensor(3, (3, 80, 70)), hash_tensor(4, (3, 50, 90))]
    points = 30 + 15 * hash_tensor(5, (2, 98, 2))
    together = reconstruct_faces(network, images, points)
    for row, image in enumerate(images):
        crop = align_face(image, points[row]).image
        assert torch.equal(together.crops[row], crop)
        alone = network(crop[None]).vector[0]
        torch.testing.assert_close(together.coefficients.vector[row], alone, rtol=0, atol=1e-5 * alone.abs().max())


def test_wrong_arguments_are_refused(network: BfmRegressor) -> None:
    with pytest.raises(ValueError, match=r"crops: expected shape \(B, 3, 224, 224\), got \(1, 3, 256, 256\)"):
        network(torch.zeros(1, 3, 256, 256))
    with pytest.raises(ValueError, match="landmarks98: expected one face for each of 1 pictures, got 2"):
        reconstruct_faces(network, [torch.zeros(3, 9, 9)], torch.zeros(2, 98, 2))


def test_coefficients_keep_their_places() -> None:
    vector = torch.arange(514.0).view(2, 257)
    coefficients = BfmCoefficients.from_vector(vector)
    assert torch.equal(coefficients.vector, vector)
    assert coefficients.expression[0, 0] == 80 and coefficients.translation[1].tolist() == [511, 512, 513]
    entries = coefficients.file_entries(1)
    assert {key: tuple(value.shape) for key, value in entries.items()} == {k: (1, n) for k, n in SIZES.items()}
    assert torch.equal(torch.cat(list(entries.values()), 1), vector[1:])
    with pytest.raises(ValueError, match=r"vector: expected shape \(B, 257\), got \(257,\)"):
        BfmCoefficients.from_vector(vector[0])


def test_other_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"net_recon": {"backbone.conv1.weight": torch.zeros(64, 3, 7, 7)}}, tmp_path / "w.pth")
    with pytest.raises(InputFileError, match="w.pth: expected the Deep3DFace network.* tensors missing"):
        load_bfm_regressor(tmp_path / "w.pth")
    monkeypatch.setenv("PORTRAIT4D_ASSETS", str(tmp_path))
    monkeypatch.setattr(registry, "PACKAGE_MODELS", tmp_path / "package")
    with pytest.raises(AssetMissingError, match="fetch_assets.py bfm_regressor --url bfm_regressor=ADDRESS"):
        load_bfm_regressor()
