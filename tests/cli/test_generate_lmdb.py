"""The database generators as a user runs them: options, kills, full disks, read-only places, both loaders."""

import hashlib
import os
import resource
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import torch

from portrait4d.data.clip_dataset import ClipDataset
from portrait4d.data.lmdb_store import LmdbReader, LmdbWriter
from portrait4d.data.portrait_dataset import PortraitDataset
from tests.helpers.cli import BROKEN_OFF, ROOT, run_script
from tests.helpers.raw_folders import write_clips, write_stills

FFHQ = "generate_lmdb/ffhq/generate_lmdb.py"
VFHQ = "generate_lmdb/vfhq/generate_lmdb.py"
KILLS = (
    (1, "portrait4d.data.lmdb_store:LmdbWriter.append", 0),
    (20, "portrait4d.data.lmdb_store:LmdbWriter.append", 18),
    (10, "portrait4d.data.lmdb_store:LmdbWriter._write", 45),
    (50, "portrait4d.data.lmdb_store:record_key", 93),
    (1, "portrait4d.data.pack_folders:write_text", 399),
    (1, "portrait4d.data.lmdb_store:finish_folder", None),
)
"""Kills of runs that go on with each other: before which call of what, and how many of 400 records are safe by then.

Three records make a commit; None: all are, and only the name is missing.
"""


@pytest.fixture(scope="module")
def stills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stills(tmp_path_factory.mktemp("raw") / "stills", 200)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("raw") / "clips", 4, 6)


def content(database: Path) -> str:
    """Hash all keys and values."""
    digest = hashlib.sha256()
    for key, value in LmdbReader(database).items():
        digest.update(f"{key} {len(value)} ".encode() + value)
    return digest.hexdigest()


@pytest.mark.parametrize("script", [FFHQ, VFHQ])
def test_help_names_the_reference_s_options_and_imports_nothing_heavy(script: str) -> None:
    text = run_script(script, "--help").stdout
    for option in ("--data_dir", "--output_dir", "--save_dir", "--resolution", "--max_len", "--limit", "--resume"):
        assert option in text
    assert "--workers" in text and "--validate" in text and "--skip-bad" in text and "--format" in text
    module = script.removesuffix(".py").replace("/", ".")
    process = run_script("tests/helpers/heavy_imports.py", module, env={"PYTHONPATH": str(ROOT)})
    assert process.returncode == 0 and process.stdout == "", process.stdout + process.stderr


def test_stills_from_the_script_s_own_folder(stills: Path, tmp_path: Path) -> None:
    arguments = ("--data_dir", stills, "--output_dir", tmp_path, "--resolution", 32, "--max_len", 7)
    process = run_script(FFHQ, *arguments, cwd=ROOT / "generate_lmdb/ffhq")
    assert process.returncode == 0, process.stderr
    assert "rebalancing: none" in process.stdout and f"7 records in {tmp_path}/FFHQ_32_7" in process.stdout
    assert sorted(path.name for path in (tmp_path / "FFHQ_32_7").iterdir()) == ["data.mdb", "lock.mdb", "packing.json"]
    assert len(PortraitDataset(tmp_path / "FFHQ_32_7")) == 7


def test_clips_and_the_aliases(clips: Path, tmp_path: Path) -> None:
    arguments = ("--data_dir", clips, "--save_dir", tmp_path, "--resolution", 32, "--limit", 3, "--frames", 5)
    process = run_script(VFHQ, *arguments)
    assert process.returncode == 0, process.stderr
    dataset = ClipDataset(tmp_path / "VFHQ_sub5_32_3")
    assert len(dataset) == 3 and dataset.frame_count(0) == 5


@pytest.mark.slow
def test_shards_and_the_converter(stills: Path, tmp_path: Path) -> None:
    arguments = ("--data_dir", stills, "--output_dir", tmp_path, "--resolution", 32, "--max_len", 5)
    assert run_script(FFHQ, *arguments, "--format", "shards").returncode == 0
    shards = tmp_path / "FFHQ_32_5-shards"
    command = [sys.executable, "-m", "portrait4d.data.convert_records", "--data", shards, "--format", "lmdb"]
    process = subprocess.run([*command, "--output", tmp_path / "db"], capture_output=True, text=True, cwd=tmp_path)
    assert process.returncode == 0 and "5 records in" in process.stdout, process.stderr
    first, second = PortraitDataset(shards), PortraitDataset(tmp_path / "db")
    assert all(torch.equal(a, b) for a, b in zip(first[4], second[4], strict=True))
    command = [sys.executable, "-m", "portrait4d.data.validate", "--data", tmp_path / "db"]
    process = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert process.returncode == 0 and "records           5" in process.stdout, process.stderr


def test_bad_items_decide_the_exit_status(stills: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    write_stills(bad, 3)
    (bad / "00000/segs/00001.jpg").unlink()
    arguments = ("--data_dir", bad, "--resolution", 32, "--output_dir")
    process = run_script(FFHQ, *arguments, tmp_path / "a")
    assert process.returncode == 1 and "1 BAD:" in process.stdout and "missing segmentation" in process.stdout
    assert len(PortraitDataset(tmp_path / "a/FFHQ_32_5")) == 5
    assert run_script(FFHQ, *arguments, tmp_path / "b", "--skip-bad").returncode == 0
    process = run_script(FFHQ, "--data_dir", tmp_path / "none", "--output_dir", tmp_path / "c")
    assert process.returncode == 1 and process.stderr.startswith("Error: ") and "no such folder" in process.stderr
    assert "Traceback" not in process.stderr


@pytest.mark.slow
def test_kills_leave_no_trace(stills: Path, tmp_path: Path) -> None:
    options = ["--data_dir", stills, "--resolution", 32, "--commit-every", 3, "--workers", 1]
    whole = run_script(FFHQ, *options, "--output_dir", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    options += ["--output_dir", tmp_path / "killed", "--resume"]
    for call, function, safe in KILLS:
        command = FFHQ.removesuffix(".py").replace("/", ".")
        process = run_script(BROKEN_OFF, signal.SIGKILL, call, function, command, *options)
        assert process.returncode == -signal.SIGKILL, process.stderr
        with closing(LmdbWriter(tmp_path / "killed/.unfinished-FFHQ_32")) as writer:
            assert (None if writer.is_complete else writer.entries) == safe, function
    process = run_script(FFHQ, *options)
    assert process.returncode == 0, process.stderr
    assert content(tmp_path / "killed/FFHQ_32_400") == content(tmp_path / "whole/FFHQ_32_400")


@pytest.mark.slow
def test_a_full_disk_is_said_and_what_was_written_is_resumed(stills: Path, tmp_path: Path) -> None:
    options = (
        "--data_dir",
        stills,
        "--resolution",
        32,
        "--max_len",
        150,
        "--commit-every",
        5,
        "--output_dir",
        tmp_path,
    )

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))

    command = [sys.executable, str(ROOT / FFHQ), *map(str, options)]
    process = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, timeout=120)
    assert process.returncode == 1 and "Traceback" not in process.stderr, process.stderr
    assert "all but the last batch is safe: make room and run again with --resume" in process.stderr
    assert not (tmp_path / "FFHQ_32_150").exists()
    process = run_script(FFHQ, *options, "--resume")
    assert process.returncode == 0, process.stderr
    again = run_script(FFHQ, *options[:-1], tmp_path / "twin")
    assert again.returncode == 0
    assert content(tmp_path / "FFHQ_32_150") == content(tmp_path / "twin/FFHQ_32_150")


def test_a_read_only_place_is_said_and_can_be_read(stills: Path, tmp_path: Path) -> None:
    place, data = tmp_path / "place", ("--data_dir", stills, "--resolution", 32, "--max_len", 4)
    assert run_script(FFHQ, *data, "--output_dir", place).returncode == 0
    mounted = subprocess.run(["mount", "--bind", place, place], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"bind mounts are not allowed here: {mounted.stderr.strip()}")
    try:
        read_only = subprocess.run(["mount", "-o", "remount,bind,ro", place], capture_output=True, text=True)
        if read_only.returncode:
            pytest.skip(f"read-only mounts are not allowed here: {read_only.stderr.strip()}")
        process = run_script(FFHQ, *data[:-1], 5, "--output_dir", place)
        assert process.returncode == 1 and "cannot be written" in process.stderr, process.stderr
        assert "Traceback" not in process.stderr
        assert len(PortraitDataset(place / "FFHQ_32_4")) == 4
        assert os.listdir(place) == ["FFHQ_32_4"]
    finally:
        subprocess.run(["umount", place], check=True)
