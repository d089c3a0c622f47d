"""What the demonstration shows: files below its folder, and figures."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from portrait4d.inference.demo_films import DemoFrame
from portrait4d.metrics.image_quality import psnr

PAGE = "index.html"


@dataclass(frozen=True)
class Film:
    """A film and the picture that stands until it plays, relative to the page."""

    path: Path
    poster: Path


@dataclass(frozen=True)
class Closeness:
    """Mean PSNR in dB of results, and of the unchanged source, against the truth; in the head's region and in all."""

    head: float
    whole: float
    copy_head: float
    copy_whole: float


@dataclass(frozen=True)
class Pair:
    """A person driven by a clip; `strip` shows moments side by side."""

    person: int
    clip: int
    film: Film
    strip: Path
    closeness: Closeness


@dataclass(frozen=True)
class Orbit:
    """A person seen from all sides."""

    film: Film
    closeness: Closeness


@dataclass(frozen=True)
class Mesh:
    """A head's surface as a .glb file, and a picture of it."""

    path: Path
    picture: Path
    vertices: int
    triangles: int


@dataclass
class DemoResults:
    """Everything on the page.

    Attributes:
        parameters: of the reconstructor, learnt ones.
        size: pixels a side of its pictures.
        frame_s: seconds that frames took, from the driving picture to the result.
        pairs, orbit, mesh, heads: what could be made; `heads` is a picture of made-up ones.
        failures: what could not be made, and why.
        total_s: seconds of everything.
    """

    parameters: int
    size: int
    frame_s: list[float] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    orbit: Orbit | None = None
    mesh: Mesh | None = None
    heads: Path | None = None
    failures: dict[str, str] = field(default_factory=dict)
    total_s: float = 0.0

    @property
    def frame_ms(self) -> float:
        """Median milliseconds of a frame; NaN if there is none."""
        return 1000 * float(torch.tensor(self.frame_s).median()) if self.frame_s else float("nan")

    @property
    def closeness(self) -> Closeness | None:
        """Mean of all pairs; None if there is none."""
        if not self.pairs:
            return None
        rows = torch.tensor([list(vars(pair.closeness).values()) for pair in self.pairs])
        return Closeness(*rows.mean(0).tolist())

    def summary(self, outdir: Path) -> str:
        """Return a few lines for the terminal."""
        lines = [f"{self.parameters / 1e6:.2f} M parameters, {self.frame_ms:.0f} ms per frame (median)"]
        if (mean := self.closeness) is not None:
            lines.append(
                f"PSNR of the head against truth {mean.head:.1f} dB, of the unchanged source {mean.copy_head:.1f} dB"
            )
        lines += [f"{name} could not be made: {problem}" for name, problem in self.failures.items()]
        return "\n".join([*lines, f"{self.total_s:.0f} s. Look at {outdir / PAGE}"])


def measure(frames: list[DemoFrame], masks: list[Tensor]) -> Closeness:
    """Compare results and sources with the truth; masks (1, S, S) in [0, 1] are of the true heads."""
    truth, mask = torch.stack([frame.truth for frame in frames]), torch.stack(masks)
    values = []
    for name in ("result", "source"):
        pictures = torch.stack([getattr(frame, name) for frame in frames])
        values += [float(psnr(pictures, truth, region).mean()) for region in (mask, None)]
    return Closeness(*values)
