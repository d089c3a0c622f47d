"""Training of GenHead: real portraits, made-up heads, and the four phases (training-genhead.md §5 to §7)."""

import copy
from typing import NamedTuple

import torch
from torch import Tensor

from portrait4d.config.training import GenHeadTraining
from portrait4d.data.image_io import from_uint8, image_grid
from portrait4d.data.portrait_dataset import PortraitDataset, PortraitItem
from portrait4d.data.sampling import grid_indices, grid_size
from portrait4d.files.errors import InputFileError, UserError
from portrait4d.geometry.head_params import HeadParams, split_label
from portrait4d.geometry.mirroring import HeadMirror
from portrait4d.geometry.neck_pose import camera_for_posed_neck
from portrait4d.losses.adversarial import (
    R1Weights,
    blur_fakes,
    real_inputs,
    real_verdict_loss,
)
from portrait4d.losses.regularizers import (
    PartPenalties,
    density_roughness,
    eye_and_mouth_penalties,
    sample_point_pairs,
)
from portrait4d.models.discriminator import Discriminator, DiscriminatorInput
from portrait4d.models.genhead import GenHead, GenHeadOptions, MeshMaps
from portrait4d.models.outputs import GenHeadRender
from portrait4d.ops.resize import resize_antialiased
from portrait4d.rendering.mesh_maps import pose_vertices, render_correspondence
from portrait4d.rendering.ray_sampling import sample_jitter
from portrait4d.training.augmentation import AugmentController
from portrait4d.training.chunk_reader import ChunkReader
from portrait4d.training.conditioning import sample_conditioning
from portrait4d.training.discriminator_phases import learn_smoothness, learn_verdicts, record_scores
from portrait4d.training.distributed import Ranks
from portrait4d.training.fake_conditions import FakeConditions, LabelMemory, build_conditions, draw_condition_rows
from portrait4d.training.grids import GridTiles, depth_picture
from portrait4d.training.head_choice import load_head
from portrait4d.training.mesh_memory import MeshMemory
from portrait4d.training.schedules import blur_sigma, lazy_interval, render_resolution, scale_kimg, swap_probability
from portrait4d.training.tasks import Moment, Record, Step, Task, build_adam, lazy_phases

GRID_SEED = 0


class GenHeadChunk(NamedTuple):
    """Real portraits as the discriminator sees them at this moment, with their cameras (B, 25)."""

    reals: DiscriminatorInput
    camera: Tensor


class FakeHeads(NamedTuple):
    """What the generator makes heads from.

    Attributes:
        latent: (B, L).
        asked: cameras and head parameters.
        rows: (B,) of the data, on the CPU, that these come from, each from one; None: parts come from different ones.
    """

    latent: Tensor
    asked: FakeConditions
    rows: Tensor | None


class GenHeadTask(Task[GenHeadChunk]):
    """GenHead and its discriminator.

    Raises:
        AssetMissingError: FLAME is wanted and is not there.
        UserError: no data, or pictures smaller than the network's (larger ones are reduced).
    """

    def __init__(self, config: GenHeadTraining, ranks: Ranks) -> None:
        self.config, self.ranks = config, ranks
        self.run, self.optim = config.run, config.optim
        head = load_head(config.head)
        self.dataset = _open_dataset(config, HeadMirror.fit(head) if config.data.mirror else None)
        generator = GenHead(config.network, head).to(ranks.device).requires_grad_(False)
        discriminator = Discriminator(config.discriminator).to(ranks.device).requires_grad_(False)
        self.networks = {"G": generator, "D": discriminator}
        self.average = copy.deepcopy(generator).eval()
        density = lazy_interval(config.density.weight, config.density.interval)
        self.phases = [*lazy_phases("G", density), *lazy_phases("D", config.adversarial.interval)]
        self.optimisers = {
            "G": build_adam(list(generator.parameters()), self.optim, self.optim.generator_lr, density),
            "D": build_adam(
                list(discriminator.parameters()),
                self.optim,
                self.optim.discriminator_lr,
                config.adversarial.interval,
            ),
        }
        adversarial = config.adversarial
        self.r1 = R1Weights(adversarial.gamma, adversarial.gamma_uv, adversarial.gamma_seg)
        self.controller = AugmentController(config.augment)
        self.reader = ChunkReader(self.dataset, self.run, ranks)
        self.labels = LabelMemory(self.dataset.label, len(self.dataset), ranks.device)
        self.meshes = MeshMemory.build(len(self.dataset), config.network.image_resolution, ranks.device)

    @property
    def generator(self) -> GenHead:
        """The network under training."""
        return self.networks["G"]

    def skip_batches(self, count: int) -> None:
        """Open the data behind `count` batches."""
        self.reader.restart(count)

    def load_chunks(self, moment: Moment) -> list[GenHeadChunk]:
        """Fetch real portraits and draw their correspondence maps, head upright."""
        return [self._prepare(PortraitItem(*part), moment) for part in next(self.reader)]

    def compute_gradients(self, chunk: GenHeadChunk, step: Step) -> None:
        """Add a phase's gradients."""
        if step.phase.name == "Dreg":
            self._regularise_discriminator(chunk, step)
            return
        fakes = self.sample_fakes(len(chunk.camera), step)
        compute = {"Gmain": self._generate, "Greg": self._regularise_generator, "Dmain": self._discriminate}
        compute[step.phase.name](*((fakes, step) if step.phase.network == "G" else (chunk, fakes, step)))

    def sample_fakes(self, count: int, step: Step) -> FakeHeads:
        """Draw latents, and cameras and parameters of random portraits of the data."""
        rows = draw_condition_rows(count, len(self.dataset), self.config.conditioning.combine, step.host_generator)
        latent_dim = self.config.network.mapping.latent_dim
        latent = torch.randn(count, latent_dim, generator=step.generator, device=self.ranks.device)
        whole = rows.shape if rows.neck is None else None
        return FakeHeads(latent, build_conditions(self.generator.head, rows, self.labels), whole)

    def make_heads(self, network: GenHead, fakes: FakeHeads, step: Step, update_average: bool = False) -> GenHeadRender:
        """Generate and render heads as training does: random noise, random samples, some wrong conditioning."""
        volume, generator = network.config.volume, step.generator
        resolution = self.resolution(step.moment)
        count = len(fakes.latent)
        options = GenHeadOptions(
            resolution=resolution,
            jitter=sample_jitter(count, resolution**2, volume.depth_samples, volume.importance_samples, generator),
            noise_mode="random",
            generator=generator,
            mesh=self._recall_mesh(network, fakes),
        )
        with self.autocast:
            styles = self._styles(network, fakes, step, update_average)
            return network(fakes.latent, styles, fakes.asked.params, fakes.asked.camera, options)

    def _recall_mesh(self, network: GenHead, fakes: FakeHeads) -> MeshMaps | None:
        if self.meshes is None or fakes.rows is None:
            return None
        asked = fakes.asked

        def draw(chosen: Tensor) -> MeshMaps:
            picked = chosen.to(self.ranks.device)
            params = HeadParams(*(part[picked] for part in vars(asked.params).values()))
            return network.draw_mesh(params, asked.camera[picked])

        return self.meshes.look_up(fakes.rows, draw)

    def resolution(self, moment: Moment) -> int:
        """Return the rays per side at present."""
        rays = self.config.resolution
        return render_resolution(moment.images_seen, rays.initial, rays.final, rays.fade_kimg)

    def blur(self, moment: Moment) -> float:
        """Return the width in pixels of the blur at present."""
        blur = self.config.blur
        if not self._fades_in:
            return 0.0
        return blur_sigma(moment.images_seen, scale_kimg(blur.fade_kimg, self.run.batch), blur.sigma)

    @property
    def _fades_in(self) -> bool:
        """Whether blur and conditioning fade as for a new network."""
        return self.config.start.weights is None or self.config.start.keep_blur

    def _prepare(self, item: PortraitItem, moment: Moment) -> GenHeadChunk:
        device = self.ranks.device
        size = self.config.network.image_resolution
        image, mask = (
            resize_antialiased(from_uint8(pixels.to(device, non_blocking=True)), size)
            for pixels in (item.image, item.mask)
        )
        camera, shape, expression, pose, eye_pose = (values.to(device, non_blocking=True) for values in item[2:])
        params = HeadParams(shape, expression, pose, eye_pose).without_neck_rotation()
        head = self.generator.head
        with torch.no_grad():
            correspondence = render_correspondence(head, pose_vertices(head, params), camera, size).image
            resolution, sigma = self.resolution(moment), self.blur(moment)
            return GenHeadChunk(real_inputs(image, mask, correspondence, resolution, sigma), camera)

    def _styles(self, network: GenHead, fakes: FakeHeads, step: Step, update_average: bool) -> Tensor:
        told = self.config.conditioning
        fade = told.swap_fade_kimg if self._fades_in else 0.0
        final = told.swap_probability if told.cameras else None
        probability = swap_probability(step.moment.images_seen, final, fade)
        conditioning = network.conditioning(fakes.asked.camera_upright, fakes.asked.params.shape)
        drawn = sample_conditioning(conditioning, probability, step.phase.name == "Greg", step.generator)
        return network.map_styles(fakes.latent, drawn, update_average=update_average)

    def _judge(self, inputs: DiscriminatorInput, camera: Tensor, step: Step) -> Tensor:
        """Return logits (B, 1) of pictures, augmented if that is asked for."""
        inputs = self.controller.augment(inputs, step.generator)
        with self.autocast:
            return self.networks["D"](inputs, camera, step.generator).float()

    def _judge_fakes(self, render: GenHeadRender, fakes: FakeHeads, step: Step) -> Tensor:
        inputs = DiscriminatorInput(render.image_sr.float(), render.image, render.correspondence, render.mask)
        logits = self._judge(blur_fakes(inputs, self.blur(step.moment)), fakes.asked.camera_upright, step)
        record_scores("fake", logits, step)
        return logits

    def _generate(self, fakes: FakeHeads, step: Step) -> None:
        render = self.make_heads(self.generator, fakes, step)
        adversarial = real_verdict_loss(self._judge_fakes(render, fakes, step))
        eye, mouth = eye_and_mouth_penalties(render.rays, render.masks.eye, render.masks.mouth)
        step.record("Loss/G/loss", adversarial)
        for part, terms in (("eye", eye), ("mouth", mouth)):
            for name, values in _part_names(part, terms).items():
                step.record(name, values)
        total = adversarial.mean() + sum(term.mean() for term in (*eye, *mouth))
        step.backward(total * step.phase.gain)

    def _regularise_generator(self, fakes: FakeHeads, step: Step) -> None:
        density, network = self.config.density, self.generator
        spread = density.spread * network.config.volume.box_warp
        points = sample_point_pairs(len(fakes.latent), spread, generator=step.generator, device=self.ranks.device)
        with self.autocast:
            styles = self._styles(network, fakes, step, update_average=False)
            planes = network.generate_planes(styles, "random", step.generator)
        field = network.part_field(fakes.asked.params)
        loss = density.weight * density_roughness(network.sample_densities(points, planes, field))
        step.record("Loss/G/TVloss", loss)
        step.backward(loss * step.phase.gain)

    def _discriminate(self, chunk: GenHeadChunk, fakes: FakeHeads, step: Step) -> None:
        with torch.no_grad():
            render = self.make_heads(self.generator, fakes, step, update_average=True)
        fake_logits = self._judge_fakes(render, fakes, step)
        logits = learn_verdicts(fake_logits, lambda: self._judge(chunk.reals, chunk.camera, step), step)
        self.controller.note(logits)

    def _regularise_discriminator(self, chunk: GenHeadChunk, step: Step) -> None:
        if self.r1.active:
            learn_smoothness(lambda inputs: self._judge(inputs, chunk.camera, step), chunk.reals, self.r1, step)

    def end_iteration(self, record: Record) -> None:
        """Adapt the augmentation."""
        self.controller.adapt(self.run.batch, self.ranks.sum)
        record("Progress/augment", self.controller.probability)

    def extra_state(self) -> dict[str, float]:
        """Return the augmentation's state."""
        return self.controller.state_dict()

    def load_extra_state(self, state: dict[str, float]) -> None:
        """Take the augmentation's state back."""
        self.controller.load_state_dict(state)

    def close(self) -> None:
        """Stop the workers that read data."""
        self.reader.close()

    def _grid_items(self) -> tuple[list[int], int]:
        columns, rows = grid_size(self.config.network.image_resolution)
        return grid_indices(len(self.dataset), columns * rows).tolist(), columns

    def draw_reals(self) -> Tensor:
        """Return the grid's portraits."""
        numbers, columns = self._grid_items()
        size = self.config.network.image_resolution
        pictures = torch.stack([from_uint8(self.dataset.load(number).image) for number in numbers])
        return image_grid(list(resize_antialiased(pictures, size).clamp(-1, 1)), columns)

    @torch.no_grad()
    def draw_pictures(self) -> dict[str, Tensor]:
        """Render heads of the grid's parameters, necks turned, by the averaged generator with constant noise."""
        numbers, columns = self._grid_items()
        network = self.average
        generator = torch.Generator().manual_seed(GRID_SEED)
        latents = torch.randn(len(numbers), self.config.network.mapping.latent_dim, generator=generator)
        tiles = GridTiles()
        for start in range(0, len(numbers), self.run.chunk_size):
            chosen = numbers[start : start + self.run.chunk_size]
            camera, params = split_label(self.labels(torch.tensor(chosen)))
            latent = latents[start : start + len(chosen)].to(self.ranks.device)
            with self.autocast:
                styles = network.map_styles(latent, network.conditioning(camera, params.shape))
                render = network(latent, styles, params, camera_for_posed_neck(network.head, params, camera))
            _show(render, tiles)
        return tiles.lay_out(columns)


def build_genhead_task(config: GenHeadTraining, ranks: Ranks) -> GenHeadTask:
    """Build the training of GenHead."""
    return GenHeadTask(config, ranks)


def _open_dataset(config: GenHeadTraining, mirror: HeadMirror | None) -> PortraitDataset:
    data, size = config.data, config.network.image_resolution
    if data.path is None:
        raise UserError("data.path: no data; give data.path=FOLDER, a database that generate_lmdb has written")
    dataset = PortraitDataset(data.path, data.max_size, config.run.seed, mirror)
    if dataset.resolution < size:
        problem = f"has pictures of {dataset.resolution} pixels, the network makes {size}"
        raise InputFileError(data.path, problem, "pack larger pictures, or choose a smaller network")
    return dataset


def _part_names(part: str, terms: PartPenalties) -> dict[str, Tensor]:
    """Return the terms of a part under the reference's names."""
    return {
        f"Loss/G/loss_face_{part}": terms.density,
        f"Loss/G/loss_{part}_density": terms.distortion,
        f"Loss/G/loss_{part}_T": terms.opacity,
    }


def _show(render: GenHeadRender, tiles: GridTiles) -> None:
    for suffix, pictures in {
        "": render.image,
        "_sr": render.image_sr,
        "_uv": render.correspondence,
        "_seg": render.mask,
        "_depth": depth_picture(render.depth, render.transmittance),
        "_eye_mask": 2 * render.masks.eye - 1,
        "_mouth_mask": 2 * render.masks.mouth - 1,
    }.items():
        tiles.add(suffix, pictures)
