"""convert_network.py: listing, conversion, refusals."""

import json
import pickle
from pathlib import Path

import pytest

from tests.helpers.cli import ROOT, run_script

SCRIPT = "portrait4d/convert_network.py"
GOLDEN = ROOT / "tests" / "golden"


def test_listing_equals_the_recorded_one() -> None:
    process = run_script(SCRIPT, "--network", GOLDEN / "network-genhead.pkl", "--list")
    assert process.returncode == 0
    listing, recorded = json.loads(process.stdout), json.loads((GOLDEN / "network-genhead.json").read_text())
    assert {name: listing[name] for name in recorded} == recorded
    assert listing["G"] == recorded["G_ema"]


class _Call:
    """Reduces to a call of a global that must be refused."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize("name", ["text", "empty", "hostile", "no-network", "absent"])
def test_bad_files_are_refused_by_name_in_one_line(tmp_path: Path, name: str) -> None:
    import os

    path, witness = tmp_path / f"{name}.pkl", tmp_path / "witness"
    content = {
        "text": b"this is no pickle\n",
        "empty": b"",
        "hostile": pickle.dumps({"G_ema": _Call(os.mkdir, str(witness))}),
        "no-network": pickle.dumps({"G": 1}),
    }
    if name in content:
        path.write_bytes(content[name])
    for flags in (["--list"], ["--out", tmp_path / "out.safetensors"]):
        if name == "no-network" and flags == ["--list"]:
            continue
        process = run_script(SCRIPT, "--network", path, *flags)
        assert process.returncode == 1, process.stdout
        message = process.stderr.strip()
        assert path.name in message and "\n" not in message and "Traceback" not in message
    assert "mkdir" in message if name == "hostile" else True
    assert not witness.exists()
    assert not (tmp_path / "out.safetensors").exists()


def test_usage(tmp_path: Path) -> None:
    process = run_script(SCRIPT, "--network", "x.pkl")
    assert process.returncode == 2
    assert "either --out or --list" in process.stderr
    process = run_script(SCRIPT, "--network", "x.pkl", "--out", tmp_path / "y.bin")
    assert "ending in .safetensors" in process.stderr


def test_a_network_is_stored_again_in_half_precision(tiny_network: Path, tmp_path: Path) -> None:
    out = tmp_path / "half.safetensors"
    process = run_script(SCRIPT, "--network", tiny_network, "--dtype", "float16", "--out", out)
    assert process.returncode == 0, process.stderr
    assert out.stat().st_size < 0.6 * tiny_network.stat().st_size


@pytest.mark.slow
def test_a_full_size_published_pickle_converts_and_loads(tmp_path: Path) -> None:
    """The 225-million-parameter network in the published form, the stand-in head inside, through the script."""
    from portrait4d.models.checkpoints import load_reconstructor
    from tests.golden.kind_reconstructor import golden_network, standin_head
    from tests.helpers.published_network import MANIFEST, published_tensors, write_published_pickle

    path, out = tmp_path / "network-snapshot-000001.pkl", tmp_path / "network.safetensors"
    write_published_pickle(path, published_tensors(standin_head()))
    process = run_script(SCRIPT, "--network", path, "--out", out)
    assert process.returncode == 0, process.stderr
    converted, expected = load_reconstructor(out), golden_network(MANIFEST)
    assert converted.config == expected.config
    ours, theirs = converted.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)
