"""What `calc_metrics_recon.py` does: its options, and the form of the benchmark's definition, as frozen dataclasses."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from portrait4d.config.networks import require

MotionInput = Literal["stored", "encoder", "none"]
FaceEncoder = Literal["synthetic", "pdfgc"]


@dataclass(frozen=True)
class ReconMetricsConfig:
    """Evaluation of a reconstructor.

    Attributes:
        network: .safetensors file or published .pkl.
        outdir: where frames.jsonl, summary.json and pictures go.
        protocol: synthetic-v1 (a bundled definition), a file of another one of its kind, folder, or gaga-vfhq.
        data: prepared clip folder (folder), or folder of such folders (gaga-vfhq).
        identities: measure the first so many persons or clips; None: all.
        frames: drivers of a clip, evenly spaced; None: all (gaga-vfhq: 50).
        motion: stored vectors, vectors read from the pictures, or none (strength 0: static networks).
        encoder: what reads motion, expression and pose from pictures; None: synthetic for synthetic protocols.
        detector: of FID: inception, pixels16 or a file; pixels16 is always measured besides.
        accept_unverified: take a detector of unknown sha256.
        use_simplified: read bfm2flame_params_simplified instead of flame_optim_params.
        cache: folder of rendered truths.
        workers: processes that render truths.
        render_size: rays per side (None: the network's own); chunk: rays at once (None: chosen for the device).
        pictures: strips of so many persons are written: source | driver | result | truth.
        seed: of the confidence intervals' drawings.
        device, dtype: where and in which precision the network runs.
        verbose: show progress.
    """

    network: Path
    outdir: Path
    protocol: str = "synthetic-v1"
    data: Path | None = None
    identities: int | None = None
    frames: int | None = None
    motion: MotionInput = "stored"
    encoder: FaceEncoder | None = None
    detector: str = "inception"
    accept_unverified: bool = False
    use_simplified: bool = False
    cache: Path = Path("~/.cache/portrait4d/benchmarks")
    workers: int = 1
    render_size: int | None = None
    chunk: int | None = None
    pictures: int = 4
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    verbose: bool = True


@dataclass(frozen=True)
class SyntheticProtocol:
    """A benchmark on persons of the open head world: numbers from which every frame follows.

    Person i is `appearance seed * SEED_STEP + i` of `portrait_sets`; clip i is motion i of `sample_clip_motions`.
    Tasks: "self", person i with clip i; "cross", person i with clip i + 1 (the last with clip 0), both at each moment
    and one frame before and after it; "novel-Ydeg", person i at `view_frame` of clip i from cameras that orbit by
    `yaws_deg`; "common", every person at `view_frame` of clip `common_clip`. Sources show `source_frame` of clip i.

    Attributes:
        name: of the protocol, with its version.
        head_version: of the open head.
        seed: of persons and motions.
        identities: persons.
        fps: frames per second of clips.
        source_frame, view_frame, moments: numbers of frames.
        yaws_deg: camera yaws.
        common_clip: a clip that is nobody's own.
        shape_sums: of each person, the sum of the shape coefficients; tells that the world is still the same.
        motion_sums: of each clip and then the common one, the sum of neck rotation and motion vector at `view_frame`.
    """

    name: str
    head_version: int
    seed: int
    identities: int
    fps: float
    source_frame: int
    view_frame: int
    moments: tuple[int, ...]
    yaws_deg: tuple[float, ...]
    common_clip: int
    shape_sums: tuple[float, ...]
    motion_sums: tuple[float, ...]

    def __post_init__(self) -> None:
        require(self.identities >= 2, "identities", "at least 2", self.identities)
        require(self.common_clip >= self.identities, "common_clip", "nobody's own clip", self.common_clip)
        require(min(self.moments, default=0) >= 1, "moments", "frames with one before", self.moments)
        require(self.view_frame in self.moments, "view_frame", f"one of {self.moments}", self.view_frame)
        require(0.0 in self.yaws_deg, "yaws_deg", "0 among them", self.yaws_deg)
        require(len(self.shape_sums) == self.identities, "shape_sums", "one a person", len(self.shape_sums))
        require(len(self.motion_sums) == self.identities + 1, "motion_sums", "one a clip", len(self.motion_sums))

    @property
    def frames(self) -> tuple[int, ...]:
        """Numbers of the driving frames: each moment with the frame before and after it."""
        return tuple(dict.fromkeys(moment + step for moment in self.moments for step in (-1, 0, 1)))
