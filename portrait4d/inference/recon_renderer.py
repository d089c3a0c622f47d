"""Results of a reconstructor for a benchmark's cases, with the time they take."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from portrait4d.config.recon_metrics import ReconMetricsConfig
from portrait4d.geometry.head_params import HeadParams, split_label
from portrait4d.geometry.neck_pose import camera_for_posed_neck
from portrait4d.inference.face_readers import FaceReader
from portrait4d.inference.recon_benchmarks import Case, Subject, TrueFrame
from portrait4d.inference.reenact import Frame, Reenactor
from portrait4d.models.outputs import HeadRender, SourceFeatures
from portrait4d.ops.backend import exact_convolutions
from portrait4d.rendering.mesh_maps import landmarks_2d


@dataclass(frozen=True)
class Results:
    """What a network makes of a subject's N cases.

    Attributes:
        images: (N, 3, S, S) in [-1, 1].
        masks: (N, 1, R, R) of the head in [0, 1].
        cases: the cases, without those whose results are not finite.
        seconds: of each, see `Row`.
    """

    images: Tensor
    masks: Tensor
    cases: list[Case]
    seconds: list[dict[str, float]]


class Renderer:
    """A network that makes results, and keeps time.

    Args:
        config: how it is driven.
        reenactor: the loaded network.
        reader: reads motion from pictures.
    """

    def __init__(self, config: ReconMetricsConfig, reenactor: Reenactor, reader: FaceReader | None) -> None:
        self.config, self.reenactor, self.reader = config, reenactor, reader
        self.network, self.device = reenactor.network, reenactor.device
        resolution = config.render_size or self.network.config.render_resolution
        self.options = replace(reenactor.options, resolution=resolution)
        self.motion_scale = 0.0 if config.motion == "none" else 1.0

    @torch.inference_mode()
    def results(self, subject: Subject) -> tuple[Results, dict[str, str]]:
        """Return a subject's results, and what failed."""
        started = self._time()
        shape, source = self._encode(subject.source)
        source_seconds = self._time() - started
        images, masks, kept, seconds, failures = [], [], [], [], {}
        for case in subject.cases:
            params, camera = self._placed(case.truth, shape)
            started = self._time()
            motion = self._motion(case.driver, params)
            read = self._time()
            with self.reenactor.precision():
                planes = self.network.generate_planes(source, motion, self.motion_scale)
                field = self.network.head_pose_field(params)
                render: HeadRender = self.network.render(planes, source.background, camera, field, self.options)
            done = self._time()
            if not render.image_sr.isfinite().all():
                failures[f"{subject.name}, {case.task}, {case.truth.name}"] = "the result is not finite"
                continue
            images.append(render.image_sr.float().clamp(-1, 1))
            masks.append((render.mask.float() + 1) / 2)
            seconds.append({"motion": read - started, "render": done - read, "source": source_seconds})
            kept.append(case)
        return Results(_join(images), _join(masks), kept, seconds), failures

    def landmarks(self, frames: Sequence[TrueFrame], size: int) -> Tensor:
        """Return the head model's landmarks (N, 70, 2) of frames, pixels, y up."""
        upright, params = split_label(torch.stack([frame.label for frame in frames]).to(self.device))
        head = self.network.head
        return landmarks_2d(head, params, camera_for_posed_neck(head, params, upright), size)

    def _encode(self, frame: TrueFrame) -> tuple[Tensor, SourceFeatures]:
        camera, params = split_label(frame.label[None].to(self.device))
        source = Frame(frame.image[None].to(self.device), camera, params, self._motion(frame, params))
        return params.shape, self.reenactor.encode_source(source, self.motion_scale)

    def _placed(self, truth: TrueFrame, shape: Tensor) -> tuple[HeadParams, Tensor]:
        """Return the source's head with the truth's motion, and the camera that sees it with its neck posed."""
        upright, params = split_label(truth.label[None].to(self.device))
        params = params.with_shape(shape)
        return params, camera_for_posed_neck(self.network.head, params, upright)

    def _motion(self, frame: TrueFrame, params: HeadParams) -> Tensor:
        config = self.network.config
        if config.motion_kind == "flame":
            return params.flame_motion()
        if self.config.motion == "none":
            return params.pose.new_zeros(1, config.motion_dim)
        if self.config.motion == "stored":
            return frame.motion[None].to(self.device)
        picture, landmarks = frame.face
        with exact_convolutions(self.device):
            return self.reader.encode_motion(picture[None].to(self.device), landmarks[None].to(self.device))

    def _time(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def _join(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if parts else torch.zeros(0)
