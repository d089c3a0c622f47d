"""convert_network.py on published GenHead and discriminator pickles: the kind is told by the class the file names."""

from pathlib import Path

import pytest

from portrait4d.models.checkpoints import load_discriminator, load_genhead
from portrait4d.models.upstream_pickles import read_network_pickle
from tests.golden.cases import standin_head
from tests.golden.kind_genhead import golden_genhead
from tests.helpers.cli import ROOT, run_script
from tests.helpers.published_network import published_tensors, write_published_pickle

SCRIPT = "portrait4d/convert_network.py"
GOLDEN = ROOT / "tests" / "golden"
MANIFEST = GOLDEN / "manifest-genhead.json"


def test_a_discriminator_converts_for_training_to_go_on(tmp_path: Path) -> None:
    out = tmp_path / "d.safetensors"
    process = run_script(SCRIPT, "--network", GOLDEN / "network-genhead.pkl", "--entry", "D", "--out", out)
    assert process.returncode == 0, process.stderr
    assert sum(parameter.numel() for parameter in load_discriminator(out).parameters()) == 31_360_000


@pytest.mark.slow
def test_a_full_size_published_genhead_converts_and_loads(tmp_path: Path) -> None:
    """The 55-million-parameter generator in the published form, the stand-in head inside, through the script."""
    path, out = tmp_path / "network-snapshot-000001.pkl", tmp_path / "network.safetensors"
    record = read_network_pickle(GOLDEN / "network-genhead.pkl", ["G_ema"])["G_ema"]
    tensors = published_tensors(standin_head(), MANIFEST)
    write_published_pickle(path, tensors, record.class_name, record.init_kwargs)
    process = run_script(SCRIPT, "--network", path, "--out", out)
    assert process.returncode == 0, process.stderr
    converted, expected = load_genhead(out), golden_genhead(MANIFEST)
    assert converted.config == expected.config
    ours, theirs = converted.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)
