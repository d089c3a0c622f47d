"""The demonstration's network at work: sources encoded once, seen by the cameras of the true pictures."""

import time
from dataclasses import replace

import torch
from torch import Tensor

from portrait4d.config.demo import DemoConfig
from portrait4d.config.experiments import ReenactConfig
from portrait4d.data.portrait_folder import PreparedPortrait
from portrait4d.geometry.cameras import join_camera, orbit_cam2world, split_camera
from portrait4d.geometry.neck_pose import camera_for_posed_neck
from portrait4d.inference import demo_cast as cast
from portrait4d.inference.reenact import Frame, Reenactor, View
from portrait4d.models.outputs import HeadRender, SourceFeatures
from portrait4d.models.pretrained.bundled import bundled_network
from portrait4d.rendering.normal_pictures import normal_picture

Angles = tuple[float, float]
"""Yaw and pitch in radians."""
_NORMALS_RAYS = 64
_MESH = {"shape_res": 96, "shape_level": 10.0}


class Stage:
    """The network with the sources that were encoded, and the watch.

    Attributes:
        frame_s: seconds that frames took, from the driving picture to the result.

    Args:
        config: of the demonstration.

    Raises:
        AssetMissingError, InputFileError: a network is missing or damaged.
        UserError: the device is not there.
    """

    def __init__(self, config: DemoConfig) -> None:
        network = config.network or bundled_network("portrait4d")
        folders = {"srcdir": cast.PORTRAITS, "tardir": cast.DRIVING, "outdir": config.outdir}
        self.reenactor = Reenactor(ReenactConfig(network, **folders, motion="synthetic", device=config.device, **_MESH))
        self.reenactor.options = replace(self.reenactor.options, resolution=None)
        self.reenactor.load_motion_encoder()
        self.network = self.reenactor.network
        self.frame_s: list[float] = []
        self._sources: dict[int, tuple[Frame, SourceFeatures]] = {}

    def source(self, person: int) -> tuple[Frame, SourceFeatures]:
        """Return a person's picture, and what the network knows of it."""
        if person not in self._sources:
            frame = self.reenactor.load_frame(cast.source_portrait(person))
            self._sources[person] = frame, self.reenactor.encode_source(frame)
        return self._sources[person]

    def reenact(
        self, person: int, portrait: PreparedPortrait, turn_rad: Angles = (0.0, 0.0)
    ) -> tuple[View, HeadRender]:
        """Drive a person by a picture, and keep the time; the camera is turned about the head by yaw and pitch."""
        source, features = self.source(person)
        started = time.perf_counter()
        driver = self.reenactor.load_frame(portrait)
        view = self._view(source, driver, turn_rad)
        render = self.reenactor.render(source, features, driver, view)
        self.frame_s.append(time.perf_counter() - started)
        return view, render

    def _view(self, source: Frame, driver: Frame, turn_rad: Angles) -> View:
        """Return the true camera: the driver's for the source's neck, then turned."""
        params = driver.params.with_shape(source.params.shape)
        camera = camera_for_posed_neck(self.network.head, params, driver.camera)
        return View(turn_camera(camera, turn_rad), driver.params)

    @torch.inference_mode()
    def normals(self, person: int, view: View, render: HeadRender) -> Tensor:
        """Render the normals (3, R, R) of what was rendered, with more rays."""
        source, features = self.source(person)
        pose = self.network.head_pose_field(view.params.with_shape(source.params.shape))
        options = replace(self.reenactor.options, resolution=_NORMALS_RAYS)
        fine = self.network.render(render.planes, features.background, view.camera, pose, options)
        return normal_picture(view.camera, fine.depth, fine.transmittance)[0].cpu()


def turn_camera(camera: Tensor, turn_rad: Angles) -> Tensor:
    """Turn a frontal camera (1, 25) about the neck."""
    cam2world, intrinsics = split_camera(camera)
    angles = torch.tensor(turn_rad, device=camera.device).view(2, 1)
    return join_camera(orbit_cam2world(angles[0], angles[1], tuple(cam2world[0, :3, 3].tolist())), intrinsics)
