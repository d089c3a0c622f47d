"""Training of Portrait4D-v2 on clips of real people, by cross-view self-reenactment (training-recon-v2.md)."""

import torch
from torch import Tensor

from portrait4d.config.recon_training import ReconV2Training
from portrait4d.data.clip_dataset import ClipDataset, ClipItem
from portrait4d.data.image_io import from_uint8
from portrait4d.data.sampling import grid_indices
from portrait4d.files.errors import InputFileError, UserError
from portrait4d.geometry.head_params import HeadParams
from portrait4d.geometry.lookat_cameras import replace_pose, sample_camera_poses
from portrait4d.geometry.neck_pose import camera_for_posed_neck
from portrait4d.losses.reconstruction import novel_view_loss
from portrait4d.models.checkpoints import load_reconstructor
from portrait4d.models.reconstructor import RenderOptions
from portrait4d.ops.resize import resize_antialiased
from portrait4d.rendering.mesh_maps import render_correspondence
from portrait4d.rendering.ray_sampling import sample_jitter
from portrait4d.synthetic_heads.head_template import build_open_head
from portrait4d.training.chunk_reader import ChunkReader
from portrait4d.training.distributed import Ranks, keyed_generator
from portrait4d.training.motion_choice import motion_reader
from portrait4d.training.pseudo_views import PseudoViews
from portrait4d.training.recon_task import ReconTask, absolute_distance
from portrait4d.training.schedules import lazy_interval
from portrait4d.training.supervision import SupervisedBatch, join_batches
from portrait4d.training.tasks import Moment, Step

GRID_CLIPS = 8


class ReconV2Task(ReconTask):
    """Reconstruction of frames of clips from other frames.

    Raises:
        UserError, AssetMissingError: something the configuration names is missing.
    """

    def __init__(self, config: ReconV2Training, ranks: Ranks) -> None:
        super().__init__(config, ranks, lazy_interval(config.pseudo.novel_view_weight, config.pseudo.interval))
        self.dataset = _open_clips(config)
        self.pseudo: PseudoViews | None = None
        if config.pseudo.network is not None:
            teacher = load_reconstructor(config.pseudo.network, build_open_head).to(ranks.device)
            if teacher.config.image_resolution != config.network.image_resolution:
                problem = f"makes pictures of {teacher.config.image_resolution} pixels"
                raise InputFileError(config.pseudo.network, problem, "give a static model of the network's size")
            self.pseudo = PseudoViews(teacher, config.pseudo, motion_reader(config.motion, ranks.device))
        self.reader = ChunkReader(self.dataset, self.run, ranks)
        self._grid: SupervisedBatch | None = None

    def skip_batches(self, count: int) -> None:
        """Open the clips behind `count` batches."""
        self.reader.restart(count)

    def load_chunks(self, moment: Moment) -> list[SupervisedBatch]:
        """Fetch frames, and make their pseudo views if all phases share them."""
        chunks = [self.prepare(ClipItem(*part)) for part in next(self.reader)]
        if not self.config.pseudo.share:
            return chunks
        generators = (self.chunk_generators(moment, "pseudo", number)[0] for number in range(len(chunks)))
        return [self._augment(chunk, moment, generator) for chunk, generator in zip(chunks, generators, strict=True)]

    def compute_gradients(self, chunk: SupervisedBatch, step: Step) -> None:
        """Add a phase's gradients; Dreg has no use for the driving motion."""
        if not self.config.pseudo.share and step.phase.name != "Dreg":
            chunk = self._augment(chunk, step.moment, step.generator)
        super().compute_gradients(chunk, step)

    def regularise_generator(self, chunk: SupervisedBatch, step: Step) -> None:
        """Let the head seen from a random camera, at rest, look as the static model shows it."""
        if self.pseudo is None:
            return
        network, resolution = self.generator, self.resolution(step.moment)
        poses = sample_camera_poses(len(chunk), step.generator)
        camera = replace_pose(chunk.camera, poses)
        volume = network.config.volume
        counts = volume.depth_samples, volume.importance_samples
        jitter = sample_jitter(len(chunk), resolution**2, *counts, step.generator)
        with self.autocast:
            teacher = self.pseudo.show(chunk, camera, resolution)
            source = network.encode_source(chunk.source_image, chunk.source_motion)
            planes = network.generate_planes(source, chunk.driving_motion)
            student = network.render(planes, source.background, camera, None, RenderOptions(resolution, jitter))
        distance = self.perceptual or absolute_distance
        seen = student.image_sr.float(), student.mask
        loss = self.config.pseudo.novel_view_weight * novel_view_loss(*seen, *teacher, distance).mean()
        step.record("Loss/G/Regloss_G_fix_img", loss)
        step.backward(loss * step.phase.gain)

    def prepare(self, item: ClipItem) -> SupervisedBatch:
        """Turn frames into a batch without synthetic extras; the target is the driving frame."""
        device, size = self.ranks.device, self.config.network.image_resolution
        head = self.generator.head

        def picture(pixels: Tensor) -> Tensor:
            return resize_antialiased(from_uint8(pixels.to(device, non_blocking=True)), size)

        values = (item.camera, item.shape, item.expression, item.pose, item.eye_pose)
        upright, shape, expression, pose, eye_pose = (value.to(device) for value in values)
        params = HeadParams(shape, expression, pose, eye_pose)
        camera = camera_for_posed_neck(head, params, upright)
        driving = picture(item.driving_image)
        return SupervisedBatch(
            source_image=picture(item.source_image),
            driving_image=driving,
            target_image=driving,
            target_mask=picture(item.driving_mask),
            target_correspondence=render_correspondence(head, params, camera, size).image,
            camera=camera,
            camera_upright=upright,
            params=params,
            source_motion=item.source_motion.to(device),
            driving_motion=item.driving_motion.to(device),
            is_still=torch.zeros(len(upright), dtype=torch.bool, device=device),
        )

    def _augment(self, chunk: SupervisedBatch, moment: Moment, generator: torch.Generator) -> SupervisedBatch:
        if self.pseudo is None or not self.config.pseudo.motion_probability:
            return chunk
        with self.autocast:
            return self.pseudo.augment_motion(chunk, self.resolution(moment), generator)

    def grid_batch(self) -> SupervisedBatch:
        """Return two frames of some clips, the same at every call."""
        if self._grid is None:
            rows = []
            for number in grid_indices(len(self.dataset), GRID_CLIPS).tolist():
                item = self.dataset.load(number, keyed_generator("cpu", number))
                rows.append(self.prepare(ClipItem(*(value[None] for value in item))))
            self._grid = join_batches(rows)
        return self._grid

    def close(self) -> None:
        """Stop the workers that read clips."""
        self.reader.close()


def build_recon_v2_task(config: ReconV2Training, ranks: Ranks) -> ReconV2Task:
    """Build the training of v2."""
    return ReconV2Task(config, ranks)


def _open_clips(config: ReconV2Training) -> ClipDataset:
    data, size = config.data, config.network.image_resolution
    if data.path is None:
        raise UserError("data.path: no data; give data.path=FOLDER, a database of clips that generate_lmdb has written")
    dataset = ClipDataset(data.path, data.max_size, config.run.seed, flame_motion=config.motion == "flame")
    if dataset.resolution < size:
        problem = f"has pictures of {dataset.resolution} pixels, the network makes {size}"
        raise InputFileError(data.path, problem, "pack larger pictures, or choose a smaller network")
    return dataset
