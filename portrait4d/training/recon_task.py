"""What the trainings of all reconstructors share: networks, losses of predictions, the discriminator's phases.

Source: training-recon-v1.md §7 to §9. Where batches come from and how the generator is regularised is up to
`recon_v1_task` and `recon_v2_task`.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from portrait4d.config.recon_training import ReconLossConfig, ReconV1Training, ReconV2Training
from portrait4d.data.image_io import image_grid
from portrait4d.losses.adversarial import R1Weights, real_inputs, real_verdict_loss
from portrait4d.losses.reconstruction import (
    HeadPictures,
    absolute_loss,
    build_target,
    depth_loss,
    emphasised_loss,
    face_emphasis,
    feature_loss,
    identity_loss,
    mask_loss,
    perceptual_loss,
)
from portrait4d.models.discriminator import Discriminator, DiscriminatorInput
from portrait4d.models.outputs import HeadRender
from portrait4d.models.pretrained.face_identity import load_face_identity
from portrait4d.models.pretrained.perceptual import build_perceptual
from portrait4d.models.reconstructor import Reconstructor, RenderOptions
from portrait4d.rendering.mesh_maps import landmarks_2d
from portrait4d.rendering.ray_sampling import sample_jitter
from portrait4d.rendering.triplanes import TriPlanes
from portrait4d.training.discriminator_phases import learn_smoothness, learn_verdicts, record_scores
from portrait4d.training.distributed import Ranks
from portrait4d.training.grids import GridTiles, depth_picture
from portrait4d.training.head_choice import load_head
from portrait4d.training.schedules import has_started, render_resolution
from portrait4d.training.supervision import SupervisedBatch
from portrait4d.training.tasks import Moment, Step, Task, build_adam, lazy_phases
from portrait4d.training.validation import Validation

CROSS_LAYERS = ("source_motion", "driving_motion", "cross_norm", "cross_attention")
"""Parts of the canonical encoder by which motion enters."""
GRID_COLUMNS = 4


class ReconTask(Task[SupervisedBatch]):
    """A reconstructor and its discriminator.

    Args:
        config: of v1 or v2.
        ranks: this process.
        interval: iterations between two regularisations of the generator; None: never.

    Raises:
        AssetMissingError: FLAME, LPIPS, ArcFace or ImageNet's weights are wanted and are not there.
    """

    def __init__(self, config: ReconV1Training | ReconV2Training, ranks: Ranks, interval: int | None) -> None:
        self.config, self.ranks, self.run, self.optim = config, ranks, config.run, config.optim
        head = load_head(config.head)
        generator, discriminator = Reconstructor(config.network, head), Discriminator(config.discriminator)
        self.prepare_networks(generator, discriminator)
        self.networks: dict[str, nn.Module] = {"G": generator, "D": discriminator}
        for network in self.networks.values():
            network.to(ranks.device).requires_grad_(False)
        self.average = copy.deepcopy(generator).eval()
        loss = config.loss
        self.perceptual = None if loss.perceptual == "none" else build_perceptual(loss.perceptual).to(ranks.device)
        self.identity = None if loss.identity == "none" else load_face_identity().to(ranks.device)
        self.phases = [*lazy_phases("G", interval), *lazy_phases("D", config.adversarial.interval)]
        groups = parameter_groups(generator, config.cross_lr_scale, config.plane_lr_scale)
        self.optimisers = {
            "G": build_adam(groups, self.optim, self.optim.generator_lr, interval),
            "D": build_adam(
                list(discriminator.parameters()), self.optim, self.optim.discriminator_lr, config.adversarial.interval
            ),
        }
        adversarial = config.adversarial
        self.r1 = R1Weights(adversarial.gamma, adversarial.gamma_uv, adversarial.gamma_seg, mask_alone=True)
        is_static = self.motion_strength == 0
        shown = self.perceptual if loss.perceptual == "lpips" else None  # random weights measure nothing
        self.validation = Validation(config.validation, config.network, head, config.motion, is_static, shown)

    def prepare_networks(self, generator: Reconstructor, discriminator: Discriminator) -> None:
        """Change new networks before anything else sees them."""

    def grid_batch(self) -> SupervisedBatch:
        """Return the subjects of the picture grid, the same at every call."""
        raise NotImplementedError

    @property
    def generator(self) -> Reconstructor:
        """The network under training."""
        return self.networks["G"]

    def resolution(self, moment: Moment) -> int:
        """Return the rays per side at present."""
        rays, start = self.config.resolution, self.config.loss.adversarial_start_kimg
        return render_resolution(moment.images_seen, rays.initial, rays.final, rays.fade_kimg, start)

    def is_adversarial(self, moment: Moment) -> bool:
        """Return whether the discriminator takes part at present."""
        return has_started(moment.images_seen, self.config.loss.adversarial_start_kimg)

    def compute_gradients(self, chunk: SupervisedBatch, step: Step) -> None:
        """Add a phase's gradients."""
        phases = {
            "Gmain": self._reconstruct,
            "Greg": self.regularise_generator,
            "Dmain": self._discriminate,
            "Dreg": self._regularise_discriminator,
        }
        if step.phase.network == "G" or self.is_adversarial(step.moment):
            phases[step.phase.name](chunk, step)

    def regularise_generator(self, chunk: SupervisedBatch, step: Step) -> None:
        """Add the gradients of the generator's regularisation."""
        raise NotImplementedError

    def predict(self, network: Reconstructor, batch: SupervisedBatch, step: Step) -> HeadRender:
        """Reconstruct, drive and render a batch as training does, at random sample positions."""
        volume, resolution = network.config.volume, self.resolution(step.moment)
        jitter = sample_jitter(
            len(batch), resolution**2, volume.depth_samples, volume.importance_samples, step.generator
        )
        return self.render(network, batch, RenderOptions(resolution, jitter))

    def render(self, network: Reconstructor, batch: SupervisedBatch, options: RenderOptions | None) -> HeadRender:
        """Reconstruct, drive and render a batch."""
        scale = batch.motion_scale(self.motion_strength)
        with self.autocast:
            source = network.encode_source(batch.source_image, batch.source_motion, scale)
            planes = network.generate_planes(source, batch.driving_motion, scale)
            deformation = network.head_pose_field(batch.params)
            return network.render(planes, source.background, batch.camera, deformation, options)

    @property
    def motion_strength(self) -> float:
        """How strongly motion works: 0 in a static model."""
        return 0.0 if getattr(self.config, "static", False) else 1.0

    def _reconstruct(self, batch: SupervisedBatch, step: Step) -> None:
        loss, render = self.config.loss, self.predict(self.generator, batch, step)
        target = build_target(batch.target_image, batch.target_mask, render.image.shape[-1], batch.background)
        four = HeadPictures(
            render.image_sr.float(), render.image, render.image_without_background, render.background_image
        )
        terms: dict[str, tuple[float, Tensor]] = {
            "lrecon_l1": (loss.absolute_weight, absolute_loss(four, target)),
            "lrecon_seg": (loss.mask_weight, mask_loss(render.mask, target)),
        }
        if loss.face_weight:
            landmarks = landmarks_2d(self.generator.head, batch.params, batch.camera, four.full.shape[-1])
            value = emphasised_loss(four.full, batch.target_image, face_emphasis(landmarks, four.full.shape[-1]))
            terms["lrecon_face"] = (loss.face_weight, value)
        if self.perceptual is not None:
            terms["lrecon_lpips"] = (loss.perceptual_weight, perceptual_loss(four, target, self.perceptual))
        if self.identity is not None:
            landmarks = landmarks_2d(self.generator.head, batch.params, batch.camera, four.full.shape[-1])
            counts = has_started(step.moment.images_seen, loss.identity_start_kimg)
            value = identity_loss(four.full, batch.target_image, landmarks, self.identity)
            terms["l_id"] = (loss.identity_weight * counts, value)
        if not has_started(step.moment.images_seen, loss.extras_end_kimg):
            terms |= self._extra_terms(batch, render, target, loss)
        if self.is_adversarial(step.moment):
            verdict = real_verdict_loss(self._judge_render(render, batch, step))
            step.record("Loss/G/loss", verdict)
            terms["adversarial"] = (loss.adversarial_weight, verdict)
        for name, (_, value) in terms.items():
            if name != "adversarial":
                step.record(f"Loss/G/{name}", value)
        step.backward(step.phase.gain * sum(weight * value.mean() for weight, value in terms.values() if weight))

    def _extra_terms(
        self, batch: SupervisedBatch, render: HeadRender, target: object, loss: ReconLossConfig
    ) -> dict[str, tuple[float, Tensor]]:
        """Return the terms for which a synthetic scene has the truth: depth, features, planes."""
        terms = {}
        size = render.depth.shape[-1]
        if batch.depth is not None and batch.depth.shape[-1] == size:
            mask = (functional.adaptive_avg_pool2d(batch.target_mask[:, :1], size) + 1) / 2
            terms["lrecon_depth"] = (loss.depth_weight, depth_loss(render.depth, batch.depth, mask))
        if batch.features is not None and batch.background is not None and batch.features.shape[-1] == size:
            value = feature_loss(render.features_without_background, render.background, batch.features, target)
            terms["lrecon_feature"] = (loss.feature_weight, value)
        if batch.plane_samples is not None:
            deformation = self.generator.head_pose_field(batch.params)
            points = batch.plane_samples.points_world
            points = points if deformation is None else deformation(points)
            found = TriPlanes(render.planes.float(), self.generator.config.volume.box_warp).sample(points)
            terms["lrecon_triplane"] = (
                loss.triplane_weight,
                functional.l1_loss(found, batch.plane_samples.features),
            )
        return terms

    def _judge(self, inputs: DiscriminatorInput, batch: SupervisedBatch, step: Step) -> Tensor:
        with self.autocast:
            return self.networks["D"](inputs, batch.camera_upright, step.generator).float()

    def _judge_render(self, render: HeadRender, batch: SupervisedBatch, step: Step) -> Tensor:
        inputs = DiscriminatorInput(render.image_sr.float(), render.image, batch.target_correspondence, render.mask)
        logits = self._judge(inputs, batch, step)
        record_scores("fake", logits, step)
        return logits

    def _reals(self, batch: SupervisedBatch, step: Step) -> DiscriminatorInput:
        return real_inputs(
            batch.target_image, batch.target_mask, batch.target_correspondence, self.resolution(step.moment)
        )

    def _discriminate(self, batch: SupervisedBatch, step: Step) -> None:
        with torch.no_grad():
            render = self.predict(self.generator, batch, step)
        fake_logits = self._judge_render(render, batch, step)
        learn_verdicts(fake_logits, lambda: self._judge(self._reals(batch, step), batch, step), step)

    def _regularise_discriminator(self, batch: SupervisedBatch, step: Step) -> None:
        if self.r1.active:
            learn_smoothness(lambda inputs: self._judge(inputs, batch, step), self._reals(batch, step), self.r1, step)

    def draw_reals(self) -> Tensor:
        """Return the grid's subjects: source, driving, target side by side."""
        batch = self.grid_batch()
        triples = zip(batch.source_image, batch.driving_image, batch.target_image, strict=True)
        return image_grid([picture.cpu().clamp(-1, 1) for triple in triples for picture in triple], 3 * GRID_COLUMNS)

    @torch.no_grad()
    def draw_pictures(self) -> dict[str, Tensor]:
        """Render the grid's subjects with the averaged network, and the validation's picture if there is one."""
        batch, tiles = self.grid_batch(), GridTiles()
        for start in range(0, len(batch), self.run.chunk_size):
            part = batch.chunk(start, min(start + self.run.chunk_size, len(batch)))
            render = self.render(self.average, part, None)
            tiles.add("", render.image)
            tiles.add("_sr", render.image_sr)
            tiles.add("_seg", render.mask)
            tiles.add("_depth", depth_picture(render.depth, render.transmittance))
        validation = self.validation.draw(lambda part: self.render(self.average, part, None))
        return tiles.lay_out(GRID_COLUMNS) | validation

    def validate(self) -> dict[str, float]:
        """Measure the averaged network on held-out heads, beside what copying the source and a mean picture give."""
        return self.validation.measure(lambda batch: self.render(self.average, batch, None))


def absolute_distance(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean absolute difference (B,) of pictures: the distance where there is no learned one."""
    return (first - second).abs().mean(dim=(1, 2, 3))


def parameter_groups(generator: Reconstructor, cross_scale: float, plane_scale: float = 1.0) -> list[dict]:
    """Return the optimiser's groups "G_cross", the layers by which motion enters, and "G_base" (§9).

    With another `plane_scale` than 1 the last convolution before the planes is a third one, "G_planes".
    """
    groups: dict[str, dict] = {"cross": {"scale": cross_scale}, "base": {"scale": 1.0}}
    if plane_scale != 1:
        groups["planes"] = {"scale": plane_scale}
    for name, parameter in generator.named_parameters():
        last = plane_scale != 1 and name.startswith("plane_generator.output_conv.")
        kind = "planes" if last else "cross" if is_cross_layer(name) else "base"
        groups[kind].setdefault("params", []).append(parameter)
    return [{"name": f"G_{kind}", **group} for kind, group in groups.items()]


def is_cross_layer(name: str) -> bool:
    """Return whether a reconstructor's parameter belongs to the layers by which motion enters."""
    return name.startswith("canonical_encoder.") and any(part in name.split(".") for part in CROSS_LAYERS)
