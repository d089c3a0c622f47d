"""Small trainings of reconstructors: overrides, and networks for them to learn from and to start with."""

import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch
from click.testing import CliRunner, Result

from portrait4d.config.load import load_config
from portrait4d.config.recon_training import ReconV1Training, ReconV2Training
from portrait4d.data.parameter_bank import SHAPE_FILES, STILL_MOTION_FILE, VIDEO_MOTION_FILE
from portrait4d.models.checkpoints import save_genhead, save_reconstructor
from portrait4d.models.reconstructor import Reconstructor
from portrait4d.training.head_choice import load_head
from tests.helpers.parameter_files import write_parameter_sets
from tests.helpers.tiny_genhead import build_tiny_genhead
from tests.helpers.training_runs import QUICK, stats

V1, V2 = "portrait4d-smoke.yaml", "portrait4d-v2-smoke.yaml"
SMALL = (*QUICK, "validation.subjects=0", "run.tick_kimg=0.004")
"""Overrides that make the smoke configurations still smaller; a tick is an iteration."""
STATIC = ("static=true", "motion=exact", "network.motion_kind=pdfgc")


def v1_config(*overrides: str) -> ReconV1Training:
    """Load the small v1 configuration."""
    return load_config(ReconV1Training, V1, [*SMALL, *overrides])


def v2_config(*overrides: str) -> ReconV2Training:
    """Load the small v2 configuration."""
    return load_config(ReconV2Training, V2, [*SMALL, *overrides])


def write_static_model(path: Path, **network: object) -> Path:
    """Save a seeded reconstructor of the small v2 configuration, entries of its network changed."""
    torch.manual_seed(0)
    config = replace(v2_config("pseudo.motion_probability=0").network, **network)
    save_reconstructor(path, Reconstructor(config, load_head("synthetic")))
    return path


def write_genhead(folder: Path, **network: object) -> tuple[str, str]:
    """Save a tiny GenHead and parameter sets; return the overrides that learn from them."""
    save_genhead(folder / "genhead.safetensors", build_tiny_genhead(load_head("synthetic"), **network))
    data = write_parameter_sets(folder / "data")
    shutil.copy(data / SHAPE_FILES[0], data / SHAPE_FILES[1])
    np.save(data / VIDEO_MOTION_FILE, np.load(data / STILL_MOTION_FILE).reshape(2, 2, 112))
    return (
        "supervision.source=genhead",
        f"supervision.genhead={folder / 'genhead.safetensors'}",
        f"supervision.parameters={data}",
    )


@dataclass(frozen=True)
class TrainingScript:
    """A training script with a small configuration, run in this process: importing torch anew would take longest.

    Attributes:
        command: of the script.
        arguments: always given.
        name: of the run directory.
    """

    command: click.Command
    arguments: tuple[str, ...]
    name: str

    def run(self, outdir: Path, *overrides: object) -> Result:
        """Run it."""
        given = [*self.arguments, "--outdir", outdir, *overrides]
        return CliRunner().invoke(self.command, [str(argument) for argument in given])

    def finish(self, outdir: Path, *overrides: object) -> Path:
        """Run it to the end and return the run directory."""
        result = self.run(outdir, *overrides)
        assert result.exit_code == 0, result.output
        assert f"run directory: {outdir / self.name}" in result.output
        return outdir / self.name


def losses(folder: Path) -> set[str]:
    """Return the names of a run's losses; all its figures must be finite."""
    last = {name: value["mean"] for name, value in stats(folder)[-1].items() if name != "timestamp"}
    assert all(math.isfinite(value) for value in last.values()), last
    return {name for name in last if name.startswith("Loss/")}
