"""What the web app may do: where it listens, which networks it shows, and how much a visitor may ask of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class WebAppConfig:
    """Settings of the web app.

    Attributes:
        host, port: where it listens.
        network: reconstructor, .safetensors or published .pkl; None: the bundled demonstration network.
        genhead: GenHead, likewise.
        max_seconds: longest driving clip.
        max_megabytes: largest upload.
        jobs: films and meshes, and likewise pictures, that are made at the same time; others wait.
        device: where the networks run.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    network: Path | None = None
    genhead: Path | None = None
    max_seconds: float = 20.0
    max_megabytes: float = 64.0
    jobs: int = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @property
    def max_bytes(self) -> int:
        """Largest upload in bytes."""
        return int(self.max_megabytes * 2**20)
