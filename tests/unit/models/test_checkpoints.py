"""Our .safetensors files and the published pickles: round trips, strictness, errors that name the file."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from portrait4d.config.networks import ReconstructorConfig
from portrait4d.files.errors import InputFileError, UserError
from portrait4d.geometry.flame import HeadModel
from portrait4d.models.checkpoints import load_reconstructor, read_safetensors, save_reconstructor
from portrait4d.models.reconstructor import Reconstructor
from portrait4d.models.upstream_head import DERIVED, FACE_ONLY, NAMES, PREFIX, head_from_upstream
from portrait4d.synthetic_heads.ellipsoid_head import build_open_head
from tests.conftest import build_tiny
from tests.golden.kind_reconstructor import standin_head


def tensors_of(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def test_an_open_head_is_named_and_rebuilt(tiny: Reconstructor, tiny_network: Path) -> None:
    tensors, metadata = tensors_of(tiny_network)
    assert not [name for name in tensors if name.startswith("head.")]
    assert json.loads(metadata["portrait4d"])["head"]["name"] == "ellipsoid"
    loaded = load_reconstructor(tiny_network, build_open_head)
    assert loaded.config == tiny.config and not loaded.training
    expected = tiny.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.state_dict().items())


def test_a_licensed_head_travels_inside(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_reconstructor(path, build_tiny(standin_head()))
    loaded = load_reconstructor(path)  # no builder needed
    assert loaded.head.name == "flame"
    assert all(torch.equal(t, loaded.head.state_dict()[n]) for n, t in standin_head().state_dict().items())


def test_published_head_names_cover_everything(tmp_path: Path) -> None:
    head = standin_head()
    published = {PREFIX + theirs: getattr(head, ours) for theirs, ours in NAMES.items()}
    published[PREFIX + "flame_model.posedirs"] = head.pose_directions.T
    published[PREFIX + FACE_ONLY] = head.canonical_vertices[head.region("face")][None]
    published |= {PREFIX + name: torch.zeros(1) for name in DERIVED}
    rebuilt = head_from_upstream(published)
    ours, theirs = head.state_dict(), rebuilt.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    with pytest.raises(KeyError, match="missing .'simplify_baris'.*unknown .'teeth'"):
        del published[PREFIX + "simplify_baris"]
        head_from_upstream(published | {PREFIX + "teeth": torch.zeros(1)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("decoder.hidden.weight"), "missing decoder.hidden.weight"),
        (lambda t: t.update(extra=torch.zeros(1)), "unexpected extra"),
        (
            lambda t: t.update({"decoder.hidden.bias": torch.zeros(3)}),
            r"wrong shape decoder.hidden.bias (3,) instead of (16,)",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(tiny_network: Path, tmp_path: Path, change: object, message: str) -> None:
    tensors, metadata = tensors_of(tiny_network)
    change(tensors)
    path = tmp_path / "bad.safetensors"
    save_file(tensors, path, metadata)
    with pytest.raises(InputFileError) as error:
        load_reconstructor(path, build_open_head)
    assert message in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)


def with_description(path: Path, source: Path, **changes: object) -> Path:
    tensors, metadata = tensors_of(source)
    description = json.loads(metadata["portrait4d"]) | changes
    save_file(tensors, path, {"portrait4d": json.dumps(description)})
    return path


def test_damaged_and_foreign_files(tiny_network: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(tiny_network.read_bytes()[:5000])
    cases = {"cannot be read as safetensors": path}
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(1)}, foreign)
    cases["no Portrait4D description"] = foreign
    cases["expected format portrait4d-1, got 'other'"] = with_description(
        tmp_path / "format.safetensors", tiny_network, format="other"
    )
    cases["expected a reconstructor, got 'genhead'"] = with_description(
        tmp_path / "kind.safetensors", tiny_network, network="genhead"
    )
    cases["another build of the open head"] = with_description(
        tmp_path / "head.safetensors", tiny_network, head={"name": "ellipsoid", "version": 1, "sha256": "0" * 64}
    )
    cases["expected ellipsoid version 1, got egg"] = with_description(
        tmp_path / "egg.safetensors", tiny_network, head={"name": "egg", "version": 1, "sha256": "0" * 64}
    )
    cases["damaged description"] = with_description(tmp_path / "config.safetensors", tiny_network, config={"x": 1})
    cases["expected a reconstructor, got []"] = with_description(
        tmp_path / "list.safetensors", tiny_network, network=[]
    )
    config = read_safetensors(tiny_network)[0]["config"] | {"background_widths": [10**9] * 4}
    cases["impossible configuration"] = with_description(tmp_path / "huge.safetensors", tiny_network, config=config)
    cases["no such file"] = tmp_path / "absent.safetensors"
    text = tmp_path / "network.bin"
    text.write_text("x")
    cases["unknown suffix '.bin'"] = text
    for message, file in cases.items():
        with pytest.raises(InputFileError) as error:
            load_reconstructor(file, build_open_head)
        assert message in str(error.value)
        assert str(file) in str(error.value)


def test_a_file_that_needs_an_open_head_says_so(tiny_network: Path) -> None:
    with pytest.raises(InputFileError, match="needs the open head 'ellipsoid'"):
        load_reconstructor(tiny_network)


def test_saving_is_atomic(tiny: Reconstructor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.safetensors"
    save_reconstructor(path, tiny)
    before = path.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("portrait4d.models.checkpoints.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save_reconstructor(path, tiny)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_places_that_cannot_be_written_are_named(tiny: Reconstructor, tmp_path: Path) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "folder.safetensors", tmp_path / "file" / "x.safetensors"):
        with pytest.raises(UserError, match=f"{path.name}: cannot be written"):
            save_reconstructor(path, tiny)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.safetensors"]


def test_a_full_disk_is_named(tiny: Reconstructor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("portrait4d.models.checkpoints.save_file", fail)
    with pytest.raises(UserError, match="x.safetensors: cannot be written .*No space left"):
        save_reconstructor(tmp_path / "x.safetensors", tiny)
    assert not list(tmp_path.iterdir())


def test_configuration_is_in_the_file(ellipsoid: HeadModel, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    network = build_tiny(ellipsoid, render_resolution=24)
    save_reconstructor(path, network)
    assert read_safetensors(path)[0]["config"]["render_resolution"] == 24
    loaded = load_reconstructor(path, build_open_head).config
    assert loaded == network.config != ReconstructorConfig()
    assert replace(loaded, render_resolution=16) == build_tiny(ellipsoid).config
