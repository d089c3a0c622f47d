"""What `calc_metrics_deform.py` does: its options as a frozen dataclass."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class MeasureConfig:
    """Comparison of generated heads, or of pictures in a folder, with a set of real pictures.

    Attributes:
        network: GenHead, .safetensors or published .pkl.
        data: database, prepared folder or folder of pictures.
        metrics: names, such as fid50k_full.
        fakes: a folder of pictures to compare instead of the network's; None for the network.
        detector: "inception", "pixels16" or a file.
        accept_unverified: take a detector of unknown sha256.
        mirror: compare with mirrored copies of the reals too, where the metric's rules let it.
        floor: also measure one random half of the reals against the other.
        gpus: number of processes.
        render_size: rays per side (None: the network's own); chunk: rays at once (None: chosen for the device).
        seed: of everything that is random.
        batch: pictures per batch of the detector.
        workers: processes that read pictures.
        cache: folder of stored statistics of reals; None keeps none.
        out: file to append results to; None chooses (see `measure_job`).
        device, dtype: where and in which precision the network runs.
        verbose: show progress.
    """

    network: Path
    data: Path
    metrics: tuple[str, ...] = ("fid50k_full",)
    fakes: Path | None = None
    detector: str = "inception"
    accept_unverified: bool = False
    mirror: bool = False
    floor: bool = False
    gpus: int = 1
    render_size: int | None = None
    chunk: int | None = None
    seed: int = 0
    batch: int = 64
    workers: int = 3
    cache: Path | None = None
    out: Path | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    verbose: bool = True
