"""One frame of a film: sources posed as the driver is, rendered, laid over what is to be behind them, arranged."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from portrait4d.config.animation import AnimateConfig
from portrait4d.data.image_io import from_uint8
from portrait4d.geometry.cameras import split_camera
from portrait4d.geometry.head_params import HeadParams, split_label
from portrait4d.geometry.neck_pose import camera_for_posed_neck
from portrait4d.inference.animate_sources import Source
from portrait4d.inference.camera_paths import viewpoints
from portrait4d.inference.driving_sources import DrivingFrame, Face
from portrait4d.inference.film_layouts import arrange, fit_into
from portrait4d.inference.head_states import FACE_PARTS, HeadState, Retargeting
from portrait4d.inference.paste_back import head_layer, old_head_mask, paste, pasted_layer
from portrait4d.inference.reenact import Frame, Reenactor, View
from portrait4d.models.outputs import HeadRender

_FADE_S = 0.6


@dataclass(frozen=True)
class Followed:
    """What the driver does in a frame.

    Attributes:
        state: smoothed; the last one known where no face is found.
        first: the first one known.
        share: 1: as the driver; 0: as the source in its photo.
    """

    state: HeadState
    first: HeadState
    share: float = 1.0


class Follower:
    """Follow a driver's states through frames without a face: hold the last one, or fade to the source's own."""

    def __init__(self, fades: bool) -> None:
        self._fades = fades
        self._state: HeadState | None = None
        self._share, self._time_s = 0.0, 0.0

    def follow(self, state: HeadState | None, time_s: float) -> Followed | None:
        """Take in the state of the next frame, None where there is no face; None before the first face."""
        step = (time_s - self._time_s) / _FADE_S
        self._time_s = time_s
        if state is not None:
            if self._state is None:
                self._first, self._share = state, 1.0
            self._state = state
            self._share = min(1.0, self._share + step)
        elif self._fades:
            self._share = max(0.0, self._share - step)
        return None if self._state is None else Followed(self._state, self._first, self._share)


class Animator:
    """Render the frames of a film.

    Args:
        config: what to make.
        reenactor: the loaded network.
        sources: heads to animate, at least one.
    """

    def __init__(self, config: AnimateConfig, reenactor: Reenactor, sources: Sequence[Source]) -> None:
        self.config, self.reenactor, self.sources = config, reenactor, sources
        self.size = reenactor.network.config.image_resolution
        self._shape: tuple[int, int] | None = None
        self._viewpoint = viewpoints(config)
        self._retargeting = [
            Retargeting(source.state, config.relative, config.expression_scale) for source in self.sources
        ]
        self._source_pictures = [source.frame.image[0].float().cpu() for source in sources]
        red, green, blue = (int(config.colour[first : first + 2], 16) for first in (1, 3, 5))
        self._colour = torch.tensor([red, green, blue])[:, None, None] / 127.5 - 1
        self._old_masks = [self._old_mask(source) for source in sources] if config.paste_back == "source" else []

    def render(self, frame: DrivingFrame, followed: Followed | None) -> Tensor:
        """Render a frame: (3, H, W) in [-1, 1], or (4, H, W) with opacity; of the size of the first one."""
        results = [self._render_source(number, frame, followed) for number in range(len(self.sources))]
        driver = None
        if frame.picture is not None and self.config.layout != "result":
            driver = _to_tensor(frame.picture)
        picture = arrange(self.config.layout, self._source_pictures, results, driver)
        self._shape = self._shape or tuple(picture.shape[1:])
        return fit_into(picture, self._shape)  # driving pictures may differ in size

    def _render_source(self, number: int, frame: DrivingFrame, followed: Followed | None) -> Tensor:
        source, config = self.sources[number], self.config
        if config.paste_back == "driving":
            picture = _to_tensor(frame.picture)
            if frame.face is None:
                return picture
            render = self._draw(source, self._target(number, followed), self._driver_camera(frame.face))
            return paste(pasted_layer(render), picture, frame.face.place.resized(1, self.size))
        target = self._target(number, followed)
        if config.paste_back == "source":
            render = self._draw(source, target, self._own_camera(source))
            return paste(pasted_layer(render, self._old_masks[number]), source.photo, source.place)
        intrinsics = split_camera(self._tensor(target.camera)).intrinsics
        render = self._draw(source, target, self._viewpoint(float(frame.time_s)).camera(intrinsics))
        if config.background == "source":
            return render.image_sr[0].float().cpu().clamp(-1, 1)
        layer = head_layer(render)
        return layer.with_opacity() if config.background == "transparent" else layer.over(self._colour)

    def _target(self, number: int, followed: Followed | None) -> HeadState:
        own = self.sources[number].state
        if followed is None:
            return own
        target = self._retargeting[number].retarget(followed.state, followed.first)
        return target if followed.share == 1 else own.blend(target, followed.share)

    def _draw(self, source: Source, state: HeadState, camera: Tensor) -> HeadRender:
        params = state.head_params(source.frame.params.shape)
        if self.config.camera == "frontal" and self.config.paste_back == "off":
            params = params.without_neck_rotation()
        driver = Frame(source.frame.image, camera, params, self._motion(state, params))
        return self.reenactor.render(source.frame, source.features, driver, View(camera, params))

    def _motion(self, state: HeadState, params: HeadParams) -> Tensor:
        if self.reenactor.network.config.motion_kind == "flame":
            return params.flame_motion()
        return self._tensor(state.face[FACE_PARTS["motion"]])

    def _old_mask(self, source: Source) -> Tensor:
        return old_head_mask(self._draw(source, source.state, self._own_camera(source)))

    def _own_camera(self, source: Source) -> Tensor:
        """Return the camera of a source's photo: it sees the head with its neck turned."""
        return camera_for_posed_neck(self.reenactor.network.head, source.frame.params, source.frame.camera)

    def _driver_camera(self, face: Face) -> Tensor:
        camera, params = split_label(self._tensor(face.label))
        return camera_for_posed_neck(self.reenactor.network.head, params, camera)

    def _tensor(self, numbers: np.ndarray) -> Tensor:
        """Return numbers (N,) as (1, N) float32 on the device."""
        return torch.from_numpy(numbers).to(self.reenactor.device, torch.float32)[None]


def _to_tensor(picture: np.ndarray) -> Tensor:
    return from_uint8(torch.from_numpy(picture).permute(2, 0, 1))
