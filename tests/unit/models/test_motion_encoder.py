"""PD-FGC motion encoder: conformance values, golden photos, names of the published weights, and bad weight files."""

import hashlib
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from portrait4d.data.image_io import load_image
from portrait4d.files.errors import AssetMissingError, InputFileError
from portrait4d.geometry.face_alignment import motion_crop
from portrait4d.models.pretrained import registry
from portrait4d.models.pretrained.motion_encoder import MotionEncoder, load_motion_encoder, published_name
from tests.golden.weights import fill
from tests.helpers.hash_fill import fill_plain, hash_tensor

SHARED = Path(__file__).resolve().parents[4] / "shared"
MANIFEST = Path(__file__).resolve().parents[2] / "golden" / "manifest-motion-encoder.json"

CONFORMANCE = {  # networks-auxiliary.md §1.6: mean, std, elements 0, n // 3, n // 2, n - 1
    "head_pose": (-70.2005, 245.817, (-43.46, -9.43905, 272.563, -369.168)),
    "eye": (118.208, 66.8887, (93.1721, 99.3034, 95.4852, 225.118)),
    "emotion": (15.5739, 275.96, (36.7002, 386.883, 39.0006, -255.748)),
    "mouth": (6.04941, 280.205, (566.069, 134.717, -503.219, 439.212)),
}


def published_shapes() -> dict[str, list[int]]:
    """Return {published name: shape} of the floating tensors of the whole encoder."""
    return {name: shape for name, shape, _, _ in json.loads(MANIFEST.read_text())["filled"]}


@pytest.fixture(scope="module")
def hash_filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like the published one: all its names, also those without use."""
    path = tmp_path_factory.mktemp("weights") / "motion_model.pth"
    torch.save(fill_plain(published_shapes()), path)
    return path


@pytest.fixture(scope="module")
def encoder(hash_filled: Path) -> MotionEncoder:
    return load_motion_encoder(hash_filled)


def test_hash_tensor_values() -> None:
    """networks-reconstructor.md §12."""
    np.testing.assert_allclose(hash_tensor(0, [4]), [-0.1847, 0.6063, 0.9888, 0.6889], atol=5e-5)
    np.testing.assert_allclose(hash_tensor(1000, [3]), [0.7782, -0.6523, -0.0361], atol=5e-5)


def test_conformance_values(encoder: MotionEncoder) -> None:
    codes = encoder(hash_tensor(1000, [1, 3, 224, 224]))
    for name, (mean, std, elements) in CONFORMANCE.items():
        values = getattr(codes, name).flatten()
        n, tolerance = len(values), 1e-4 * values.abs().max().item()
        assert values.mean().item() == pytest.approx(mean, abs=tolerance)
        assert values.std().item() == pytest.approx(std, abs=tolerance)
        np.testing.assert_allclose(values[[0, n // 3, n // 2, n - 1]], elements, rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", ["a", "b"])
def test_photo_gives_the_motion_of_the_reference(case: str, tmp_path: Path) -> None:
    golden_path = SHARED / "golden" / f"motion-{case}.npz"
    if not golden_path.is_file() or not (SHARED / "real" / "portraits").is_dir():
        pytest.skip(f"needs {golden_path} and the photos in {SHARED / 'real'}, which stay outside the repository")
    golden = np.load(golden_path)
    photo = SHARED / "real" / "portraits" / "align_images" / str(golden["photo"])
    points = torch.from_numpy(np.load(photo.parents[1] / "3dldmks_align" / f"{photo.stem}.npy"))[None]
    save_file({name: torch.from_numpy(value) for name, value in fill(MANIFEST).items()}, tmp_path / "m.safetensors")
    encoder = load_motion_encoder(tmp_path / "m.safetensors")
    image = load_image(photo)[None]
    motion = encoder.encode_motion(image, points)
    head_pose = encoder(motion_crop(image, points)[0]).head_pose
    for actual, expected in ((motion, golden["motion"]), (head_pose, golden["headpose"])):
        np.testing.assert_allclose(actual[0].numpy(), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_names_are_the_published_ones() -> None:
    manifest = json.loads(MANIFEST.read_text())
    shapes = {name: tuple(shape) for name, shape, *_ in manifest["filled"] + manifest["derived"]}
    ours = {published_name(name): tuple(value.shape) for name, value in MotionEncoder().state_dict().items()}
    unused = {"mouth_embed.1.weight", "mouth_embed.1.bias"}
    assert ours == {name: shape for name, shape in shapes.items() if name not in unused}


def test_vector_is_eye_emotion_mouth(encoder: MotionEncoder) -> None:
    codes = encoder(hash_tensor(5, [2, 3, 224, 224]))
    assert [tuple(code.shape) for code in codes] == [(2, 6), (2, 6), (2, 30), (2, 512)]
    assert codes.vector.shape == (2, 548)
    assert torch.equal(codes.vector[:, :6], codes.eye)
    assert torch.equal(codes.vector[:, 6:36], codes.emotion)
    assert torch.equal(codes.vector[:, 36:], codes.mouth)


def test_batch_gives_what_single_images_give(encoder: MotionEncoder) -> None:
    crops = hash_tensor(6, [2, 3, 224, 224])
    together, alone = encoder(crops).vector, torch.cat([encoder(crop[None]).vector for crop in crops])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5 * alone.abs().max().item())


def test_encoder_is_frozen(encoder: MotionEncoder) -> None:
    encoder.train()
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_wrong_crop_size_is_refused(encoder: MotionEncoder) -> None:
    with pytest.raises(ValueError, match=r"crops: expected shape \(B, 3, 224, 224\), got \(1, 3, 112, 112\)"):
        encoder(torch.zeros(1, 3, 112, 112))


def test_data_parallel_prefix_and_extra_entries_are_tolerated(hash_filled: Path, tmp_path: Path) -> None:
    tensors = torch.load(hash_filled, weights_only=True)
    path = tmp_path / "wrapped.pth"
    torch.save({**{f"module.{k}": v for k, v in tensors.items()}, "module.extra": torch.zeros(2), "epoch": 3}, path)
    state, expected = load_motion_encoder(path).state_dict(), load_motion_encoder(hash_filled).state_dict()
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_missing_tensors_are_listed(hash_filled: Path, tmp_path: Path) -> None:
    tensors = torch.load(hash_filled, weights_only=True)
    del tensors["model.m0.b2_plus_1.conv1.weight"], tensors["to_eye.2.running_var"]
    torch.save(tensors, tmp_path / "motion_model.pth")
    with pytest.raises(InputFileError) as caught:
        load_motion_encoder(tmp_path / "motion_model.pth")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'motion_model.pth'}: 2 of 325 tensors are missing: ")
    assert "model.m0.b2_plus_1.conv1.weight, to_eye.2.running_var" in message
    assert "PD-FGC-inference" in message
    assert "\n" not in message


def test_long_lists_of_missing_tensors_are_cut(tmp_path: Path) -> None:
    save_file({"another.network": torch.zeros(2)}, tmp_path / "m.safetensors")
    with pytest.raises(
        InputFileError, match=r"325 of 325 tensors are missing: model\.conv1\.weight, .* and 305 more; "
    ):
        load_motion_encoder(tmp_path / "m.safetensors")


def test_wrong_shape_is_named(hash_filled: Path, tmp_path: Path) -> None:
    tensors = torch.load(hash_filled, weights_only=True)
    tensors["model.fc.weight"] = torch.zeros(512, 100)
    torch.save(tensors, tmp_path / "m.pth")
    with pytest.raises(InputFileError, match=r"model\.fc\.weight: expected shape \(512, 784\), got \(512, 100\)"):
        load_motion_encoder(tmp_path / "m.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", ["text", "empty", "cut", "folder", "missing"])
def test_damaged_weight_files(hash_filled: Path, tmp_path: Path, suffix: str, content: str) -> None:
    path = tmp_path / f"motion_model{suffix}"
    if content == "text":
        path.write_text("<html>404: not found</html>\n")
    elif content == "empty":
        path.touch()
    elif content == "cut":
        if suffix == ".pth":
            path.write_bytes(hash_filled.read_bytes()[:-1000])
        else:
            save_file({"a": torch.zeros(100)}, path)
            path.write_bytes(path.read_bytes()[:-10])
    elif content == "folder":
        path.mkdir()
    with pytest.raises(InputFileError, match=path.name) as caught:
        load_motion_encoder(path)
    assert "; " in str(caught.value)
    assert "\n" not in str(caught.value)


class Dangerous:
    """Unpickling this makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.path,)


def test_weight_files_cannot_run_code(tmp_path: Path) -> None:
    torch.save({"model.fc.weight": Dangerous(tmp_path / "made")}, tmp_path / "m.pth")
    with pytest.raises(InputFileError, match="not a readable file of weights"):
        load_motion_encoder(tmp_path / "m.pth")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"epoch": 3}, {}])
def test_files_without_named_tensors_are_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "m.pth")
    with pytest.raises(InputFileError, match="expected a dict of names and tensors"):
        load_motion_encoder(tmp_path / "m.pth")


def test_assets_folder_comes_before_the_package(
    hash_filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assets, package = tmp_path / "assets", tmp_path / "package"
    monkeypatch.setenv("PORTRAIT4D_ASSETS", str(assets))
    monkeypatch.setattr(registry, "PACKAGE_MODELS", package)
    places = [root / "pdfgc" / "weights" / "motion_model.pth" for root in (assets, package)]
    with pytest.raises(AssetMissingError) as caught:
        load_motion_encoder()
    message = str(caught.value)
    assert all(text in message for text in ("motion_model.pth", str(places[0]), str(places[1]), "PD-FGC-inference"))
    places[1].parent.mkdir(parents=True)
    places[1].write_bytes(hash_filled.read_bytes())
    assert registry.find_weights("motion_encoder") == places[1]
    places[0].parent.mkdir(parents=True)
    places[0].write_bytes(hash_filled.read_bytes())
    assert registry.find_weights("motion_encoder") == places[0]
    load_motion_encoder()


def test_missing_weights_name_the_variable_that_is_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PORTRAIT4D_ASSETS", raising=False)
    monkeypatch.setattr(registry, "PACKAGE_MODELS", tmp_path)
    with pytest.raises(AssetMissingError, match=r"\$PORTRAIT4D_ASSETS/pdfgc/weights/motion_model\.pth"):
        registry.find_weights("motion_encoder")


def test_package_place_is_the_published_one() -> None:
    place = registry.PACKAGE_MODELS / registry.EXTERNAL_WEIGHTS["motion_encoder"].path
    assert place.as_posix().endswith("portrait4d/models/pdfgc/weights/motion_model.pth")


def test_known_digest_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = registry.EXTERNAL_WEIGHTS["motion_encoder"]
    path = tmp_path / entry.path
    path.parent.mkdir(parents=True)
    path.write_bytes(b"abc")
    monkeypatch.setenv("PORTRAIT4D_ASSETS", str(tmp_path))
    digest = hashlib.sha256(b"abc").hexdigest()
    monkeypatch.setitem(registry.EXTERNAL_WEIGHTS, "motion_encoder", replace(entry, sha256=digest))
    assert registry.find_weights("motion_encoder") == path
    path.write_bytes(b"abd")
    with pytest.raises(InputFileError, match="not the expected PD-FGC motion encoder: sha256"):
        registry.find_weights("motion_encoder")


def test_unknown_key() -> None:
    known = re.escape(str(sorted(registry.EXTERNAL_WEIGHTS)))
    with pytest.raises(ValueError, match=f"key: expected one of {known}, got 'nose'"):
        registry.find_weights("nose")
