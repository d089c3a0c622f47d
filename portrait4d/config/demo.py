"""What the demonstration does."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class DemoConfig:
    """Settings of the demonstration.

    Attributes:
        outdir: folder of the page and its films.
        network, genhead: .safetensors files of the open head world, or None: the bundled ones.
        frames: of each clip and of the orbit, and made-up heads, at most; None: all there are.
        picture: also write the results side by side to this .jpg file.
        device: where the networks run.
    """

    outdir: Path
    network: Path | None = None
    genhead: Path | None = None
    frames: int | None = None
    picture: Path | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
