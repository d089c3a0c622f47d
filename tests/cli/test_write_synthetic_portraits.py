"""write_synthetic_portraits.py as a user runs it: stills, clips, truth, resuming, and options that cannot be."""

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from portrait4d.data.label_checks import label_problems
from portrait4d.data.pack_sources import ReadRules, plan_clips, plan_stills, read_clip, read_still
from portrait4d.data.portrait_folder import PortraitFolder
from portrait4d.synthetic_heads import portrait_sets
from portrait4d.synthetic_heads.portrait_sets import PortraitSetConfig, plan_jobs
from portrait4d.synthetic_heads.portraits import is_complete
from portrait4d.write_synthetic_portraits import main
from tests.helpers.cli import ROOT, run_script

SCRIPT = "portrait4d/write_synthetic_portraits.py"
STILLS = ("--identities", 2, "--resolution", 64, "--seed", 5, "--views", 1, "--truth")
PATIENCE_S = 100
CLIP = ("--identities", 1, "--clips", 1, "--frames", 3, "--resolution", 64, "--format", "jpg")


def run(*arguments: object) -> Result:
    """Run the command in this process: importing torch for every case would take most of the time."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def stills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written by a real process with two spawned workers."""
    root = tmp_path_factory.mktemp("stills") / "out"
    process = run_script(SCRIPT, "--out", root, *STILLS, "--workers", 2)
    assert process.returncode == 0, process.stderr
    assert "4 portraits written" in process.stdout and "0 were there already" in process.stdout
    assert "4/4" in process.stderr
    return root


def test_help_imports_nothing_heavy() -> None:
    text = run("--help").stdout
    for option in ("--out", "--identities", "--clips", "--frames", "--views", "--resolution", "--seed", "--workers"):
        assert option in text
    assert "--truth" in text
    process = run_script("tests/helpers/heavy_imports.py", "portrait4d.write_synthetic_portraits")
    assert process.returncode == 0 and process.stdout == "", process.stdout + process.stderr


def test_stills_are_laid_out_as_ffhq_and_can_be_packed(stills: Path) -> None:
    sources = plan_stills(stills, "none")
    assert [source.name for source in sources] == ["00000/align_images/00000.png", "00000/align_images/00001.png"]
    for source in sources:
        packed = read_still(source, ReadRules(64, True, 1, False))
        assert len(packed.values) == 1 and not packed.bad and not packed.left_out
    assert len(list((stills / "00000/views/align_images").iterdir())) == 2
    assert not list(stills.rglob(".*"))


def test_the_manifest_tells_the_exact_parameters(stills: Path) -> None:
    rows = [json.loads(line) for line in (stills / "manifest.jsonl").read_text().splitlines()]
    assert [row["file"] for row in rows] == [f"00000/align_images/0000{k}.png" for k in range(2)]
    assert [row["appearance_seed"] for row in rows] == [5_000_000, 5_000_001]
    for row, item in zip(rows, PortraitFolder(stills / "00000").items(), strict=True):
        label = item.load_frame_label(simplified=False)
        assert np.array_equal(np.float32(row["camera"]), label[:25])
        assert np.array_equal(np.float32(row["neck_rad"] + row["jaw_rad"] + 2 * row["gaze_rad"]), label[425:])
        assert np.array_equal(np.float32(list(row["expression"].values())), label[325:425][label[325:425] != 0])
        assert np.array_equal(np.float32(list(row["shape"].values())), label[25:325][label[25:325] != 0])


def test_truth_shows_one_person_with_the_other_s_motion(stills: Path) -> None:
    own = [item.load_frame_label(simplified=False) for item in PortraitFolder(stills / "00000").items()]
    crossed = PortraitFolder(stills / "truth/00000").items()
    assert [item.stem for item in crossed] == ["00000_00001", "00001_00000"]
    for k, item in enumerate(crossed):
        label = item.load_frame_label(simplified=False)
        assert label_problems(label) == []
        assert np.array_equal(label[25:325], own[k][25:325]) and np.array_equal(label[325:], own[1 - k][325:])
    rows = [json.loads(line) for line in (stills / "truth/manifest.jsonl").read_text().splitlines()]
    assert [(row["person"], row["motion"]) for row in rows] == [(0, 1), (1, 0)]


def test_the_same_command_resumes_and_makes_the_same_bytes(stills: Path) -> None:
    before = contents(stills)
    (stills / "00000/segs/00001.png").unlink()
    (stills / "truth/00000/motion_feats/00000_00001.npy").unlink()
    (stills / "manifest.jsonl").unlink()
    (stills / "00000/align_images/.tmp-killed.png").write_bytes(b"half")
    result = run("--out", stills, *STILLS)
    assert result.exit_code == 0 and "2 portraits written" in result.stdout and "2 were there already" in result.stdout
    assert contents(stills) == before

    result = run("--out", stills, *STILLS, "--resolution", 32)
    assert result.exit_code == 1 and "the set there has resolution 64, not 32" in result.stderr
    assert contents(stills) == before


def test_a_killed_run_leaves_no_workers_and_goes_on(stills: Path, tmp_path: Path) -> None:
    root = tmp_path / "out"
    command = [sys.executable, str(ROOT / SCRIPT), "--out", str(root), *map(str, STILLS), "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + PATIENCE_S
    while not (root / "00000/align_images").exists():
        assert time.monotonic() < deadline and process.poll() is None, "nothing is written"
        time.sleep(0.02)
    process.kill()
    process.wait()
    deadline = time.monotonic() + PATIENCE_S
    while _group_lives(process.pid):
        assert time.monotonic() < deadline, "workers outlive the run"
        time.sleep(0.05)
    result = run("--out", root, *STILLS)
    assert result.exit_code == 0, result.output
    assert contents(root) == contents(stills)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "picture"))

    monkeypatch.setattr(portrait_sets, "write_portrait", fail)
    result = run("--out", tmp_path / "out", "--identities", 1, "--resolution", 64)
    assert result.exit_code == 1 and "cannot be written (No space left on device)" in result.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["settings.json"]


def test_the_bundled_examples_are_complete() -> None:
    examples = ROOT / "portrait4d/examples/synthetic"
    assert len(plan_stills(examples / "portraits", "none")) == 12
    clips, bad = plan_clips(examples / "driving")
    assert len(clips) == 2 and not bad
    for folder in (examples / "portraits/00000", *(clip.folder for clip in clips)):
        for item in PortraitFolder(folder).items():
            assert is_complete(folder, item.stem, ".jpg") and item.load_image().shape == (3, 256, 256)
            assert label_problems(item.load_frame_label(simplified=False)) == []
    assert sum(path.stat().st_size for path in examples.rglob("*") if path.is_file()) < 6e6


def test_clips_are_laid_out_as_vfhq_and_can_be_packed(tmp_path: Path) -> None:
    result = run("--out", tmp_path, *CLIP)
    assert result.exit_code == 0, result.output
    clips, bad = plan_clips(tmp_path)
    assert [clip.name for clip in clips] == ["clip-00000"] and not bad
    packed = read_clip(clips[0], ReadRules(64, True, 3, False))
    assert len(packed.values) == 1 and not packed.bad and not packed.left_out
    labels = [item.load_frame_label(simplified=False) for item in PortraitFolder(clips[0].folder).items()]
    assert len(labels) == 3
    for first, second in zip(labels, labels[1:], strict=False):
        assert np.array_equal(first[25:325], second[25:325]) and 0 < np.abs(first[425:] - second[425:]).max() < 0.1


def test_jobs_of_many() -> None:
    jobs = plan_jobs(PortraitSetConfig(Path(), 1001))
    assert (jobs[999].folder, jobs[1000].folder, jobs[1000].stems) == ("00000", "01000", ("01000",))
    crossed = plan_jobs(PortraitSetConfig(Path(), 2, clips=3, frames=4, truth=True), truth=True)
    assert [(job.person, job.motion) for job in crossed] == [(0, 1), (1, 2), (0, 0)]
    assert crossed[0].folder == "truth/clip-00000_clip-00001" and len(crossed[0].stems) == 4


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "Missing option '--out'"),
        (("--out", "{}", "--identities", 0), 2, "0 is not in the range"),
        (("--out", "{}", "--resolution", 8), 2, "8 is not in the range"),
        (("--out", "{}", "--format", "gif"), 2, "'gif' is not one of"),
        (("--out", "{}", "--identities", 1, "--truth"), 1, "at least two are needed"),
        (("--out", "{}/full"), 1, "holds other files (note.txt, ...); choose an empty or new --out"),
    ],
)
def test_what_cannot_be(tmp_path: Path, arguments: tuple[object, ...], code: int, message: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/note.txt").write_text("mine")
    result = run(*(str(argument).replace("{}", str(tmp_path)) for argument in arguments))
    assert result.exit_code == code and message in result.stderr
    assert isinstance(result.exception, SystemExit)
    with pytest.raises(ValueError, match="views: expected 0 or more, got -1"):
        PortraitSetConfig(tmp_path, 1, views=-1)
