"""fetch_assets.py as a user runs it, against a server on this machine."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from scipy.io import savemat

from portrait4d.fetch_assets import main
from portrait4d.files.errors import InputFileError, UserError
from portrait4d.models.pretrained import fetching
from portrait4d.models.pretrained.fetching import FetchRequest, check_bfm, choose_missing, find_problem, parse_address
from portrait4d.models.pretrained.registry import EXTERNAL_WEIGHTS, ExternalWeights
from tests.helpers.cli import ROOT, run_script
from tests.helpers.file_server import FileServer, serve_files
from tests.helpers.standin_head import write_standin_folder

SCRIPT = "portrait4d/fetch_assets.py"
REPOSITORY = "owner/portrait4d"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serve_files() as state:
        state.add_repository(
            REPOSITORY,
            {
                "models/genhead-ffhq512.pkl": b"G" * 3000,
                "pdfgc/weights/motion_model.pth": b"M" * 2000,
                "README.md": b"#",
            },
        )
        state.files["/vgg.pth"] = b"V" * 100
        yield state


@pytest.fixture
def environment(server: FileServer, tmp_path: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": server.url, "PORTRAIT4D_ASSETS": str(tmp_path / "assets"), "no_proxy": "127.0.0.1"}


def run(*arguments: object, env: dict[str, str]) -> Result:
    """Run the command in this process: importing torch for every case would take most of the time."""
    return CliRunner(env=env).invoke(main, [str(argument) for argument in arguments])


def test_help_imports_nothing_heavy() -> None:
    process = run_script("tests/helpers/heavy_imports.py", "portrait4d.fetch_assets")
    assert process.stdout.strip() == "", process.stdout + process.stderr


def test_licences_come_first_then_files(server: FileServer, environment: dict[str, str], tmp_path: Path) -> None:
    arguments = ["genhead", "motion_encoder", "--repo", REPOSITORY]
    process = run(*arguments, env=environment)
    assert process.exit_code == 1
    assert "GenHead network" in process.stdout and process.stdout.count("licence:") == 2
    assert "--accept-licences" in process.stderr
    assert not server.requests and not (tmp_path / "assets").exists()

    process = run_script(SCRIPT, *arguments, "--accept-licences", env=environment)
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("(verified)") == 2
    assert (tmp_path / "assets/pretrained_models/genhead-ffhq512.pkl").read_bytes() == b"G" * 3000
    assert (tmp_path / "assets/pdfgc/weights/motion_model.pth").read_bytes() == b"M" * 2000

    server.requests.clear()
    process = run_script(SCRIPT, *arguments, "--accept-licences", env=environment, cwd=ROOT / "portrait4d")
    assert process.returncode == 0 and "nothing to fetch" in process.stdout
    assert not server.requests


def test_an_interrupted_run_goes_on_and_a_corrupted_transfer_is_refused(
    server: FileServer, environment: dict[str, str], tmp_path: Path
) -> None:
    path = f"/{REPOSITORY}/resolve/main/models/genhead-ffhq512.pkl"
    place = tmp_path / "assets/pretrained_models/genhead-ffhq512.pkl"
    place.parent.mkdir(parents=True)
    place.with_name(place.name + ".part").write_bytes(b"G" * 1200)  # as a killed run leaves it
    arguments = ["genhead", "--repo", REPOSITORY, "--accept-licences"]
    process = run(*arguments, env=environment)
    assert process.exit_code == 0, process.stderr
    assert (path, "bytes=1200-") in server.requests
    assert place.read_bytes() == b"G" * 3000

    place.unlink()
    server.files[path] = b"g" + b"G" * 2999  # not what the repository's list says
    process = run(*arguments, env=environment)
    assert process.exit_code == 1 and "nothing was kept" in process.stderr
    assert list(place.parent.iterdir()) == []


def test_addresses_and_what_nobody_knows(server: FileServer, environment: dict[str, str], tmp_path: Path) -> None:
    process = run(
        "vgg16", "resnet34", "genhead", "--url", f"vgg16={server.url}/vgg.pth", "--accept-licences",
        "--assets", tmp_path / "here", env=environment,
    )  # fmt: skip
    assert process.exit_code == 1
    assert (tmp_path / "here/imagenet/vgg16.pth").read_bytes() == b"V" * 100
    assert "no sha256 was known before" in process.stdout
    assert "resnet34: no address is known; it comes from torchvision" in process.stderr
    assert "genhead: no address is known" in process.stderr and "give --repo OWNER/NAME" in process.stderr
    assert "2 not fetched" in process.stderr

    wrong = f"vgg16={server.url}/vgg.pth#sha256={'0' * 64}"
    process = run("vgg16", "--url", wrong, "--accept-licences", env=environment)
    assert process.exit_code == 1 and "nothing was kept" in process.stderr
    assert not (tmp_path / "assets/imagenet/vgg16.pth").exists()


def test_list_says_what_is_there(environment: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "assets"
    (folder / "imagenet").mkdir(parents=True)
    (folder / "imagenet/vgg16.pth").write_bytes(b"V")
    write_standin_folder(folder / "FLAME")
    (folder / "facerecon/bfm").mkdir(parents=True)
    (folder / "facerecon/bfm/BFM_model_front.mat").write_bytes(b"no such thing")
    process = run("--list", env=environment)
    assert process.exit_code == 0, process.stderr
    states = {line.split()[1]: line.split()[0] for line in process.stdout.splitlines() if line[0] != " "}
    assert states == dict.fromkeys(EXTERNAL_WEIGHTS, "missing") | {"vgg16": "there", "flame": "there", "bfm": "bad"}
    assert str(folder / "pdfgc/weights/motion_model.pth") in process.stdout
    assert "not a readable MATLAB file" in process.stdout
    process = run("vgg16", "bfm", "--list", env=environment)
    states = {line.split()[1]: line.split()[0] for line in process.stdout.splitlines() if line[0] != " "}
    assert states == {"vgg16": "there", "bfm": "bad"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["flame"], "flame is never fetched: register at https://flame.is.tue.mpg.de"),
        (["bfm"], "Basel"),
        (["nose"], "nose: expected one of motion_encoder"),
        (["nose", "--list"], "nose: expected one of motion_encoder"),
        (["genhead", "--repo", "nobody/nothing", "--accept-licences"], "404"),
        (["vgg16", "--url", "vgg16=ftp://x", "--accept-licences"], "https://"),
        (["vgg16", "--url", "vgg16"], "expected KEY=ADDRESS"),
    ],
)
def test_what_cannot_be(environment: dict[str, str], arguments: list[str], message: str) -> None:
    process = run(*arguments, env=environment)
    assert process.exit_code in (1, 2)
    assert message in process.stderr and isinstance(process.exception, SystemExit)


def test_no_folder(tmp_path: Path) -> None:
    process = run("--list", env={"PORTRAIT4D_ASSETS": ""})
    assert process.exit_code == 1 and "give --assets FOLDER, or set PORTRAIT4D_ASSETS" in process.stderr


def test_damaged_flame_files_are_named(tmp_path: Path) -> None:
    folder = write_standin_folder(tmp_path / "FLAME")
    model = folder / "geometry/generic_model.pkl"
    model.write_bytes(model.read_bytes()[:1000])
    state = {state.key: state for state in fetching.list_assets(tmp_path)}["flame"]
    assert state.state == "bad" and "generic_model.pkl" in state.note
    model.unlink()
    state = {state.key: state for state in fetching.list_assets(tmp_path)}["flame"]
    assert state.state == "bad" and "put it at" in state.note


def test_bfm_files_are_checked(tmp_path: Path) -> None:
    path, vertices = tmp_path / "BFM_model_front.mat", 5
    content = {
        "meanshape": np.zeros((1, 3 * vertices)),
        "idBase": np.zeros((3 * vertices, 80)),
        "exBase": np.zeros((3 * vertices, 64)),
        "tri": np.ones((7, 3)),
    }
    savemat(path, content)
    check_bfm(path)
    savemat(path, content, do_compression=True)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:150] + b"\xff" * 8 + whole[158:]):
        path.write_bytes(damaged)
        with pytest.raises(InputFileError, match="not a readable MATLAB file"):
            check_bfm(path)
    savemat(path, content | {"idBase": np.zeros((3 * vertices, 79))})
    with pytest.raises(InputFileError, match=r"idBase: expected shape \(None, 80\), got \(15, 79\)"):
        check_bfm(path)
    savemat(path, content | {"exBase": np.zeros((12, 64))})
    with pytest.raises(InputFileError, match="expected one number of vertices"):
        check_bfm(path)
    savemat(path, {"meanshape": content["meanshape"]})
    with pytest.raises(InputFileError, match=r"idBase: expected shape \(None, 80\), got None"):
        check_bfm(path)


def test_known_sizes_and_hashes_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = ExternalWeights("T", "t.bin", "s", "l", size=3, sha256=fetching.digest_file(ROOT / "LICENSE"))
    (tmp_path / "t.bin").write_bytes(b"1234")
    assert find_problem(tmp_path / "t.bin", entry) == "expected 3 bytes, got 4"
    (tmp_path / "t.bin").write_bytes(b"123")
    assert find_problem(tmp_path / "t.bin", entry).startswith("expected sha256")
    monkeypatch.setitem(EXTERNAL_WEIGHTS, "toy", entry)
    assert choose_missing(FetchRequest(tmp_path, ["toy"])) == ["toy"]
    (tmp_path / "t.bin").write_bytes((ROOT / "LICENSE").read_bytes())
    monkeypatch.setitem(EXTERNAL_WEIGHTS, "toy", ExternalWeights("T", "t.bin", "s", "l", sha256=entry.sha256))
    assert choose_missing(FetchRequest(tmp_path, ["toy"])) == []


def test_addresses_are_checked() -> None:
    assert parse_address(f"https://a/b#sha256={'A' * 64}").sha256 == "a" * 64
    with pytest.raises(UserError, match="64 hexadecimal digits"):
        parse_address("https://a/b#sha256=12")
    assert json.dumps(sorted(fetching.REGISTERED_ASSETS)) == '["bfm", "flame"]'
