"""A reconstructor's training with formulas in place of its networks, and one turn of it."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from portrait4d.config.networks import ReconstructorConfig
from portrait4d.config.recon_training import ReconV1Training, ReconV2Training
from portrait4d.geometry.head_params import HeadParams
from portrait4d.losses.adversarial import R1Weights
from portrait4d.models.discriminator import DiscriminatorInput
from portrait4d.models.outputs import SourceFeatures
from portrait4d.models.reconstructor import RenderOptions
from portrait4d.training.distributed import Ranks, keyed_generator
from portrait4d.training.loop import learning
from portrait4d.training.recon_task import ReconTask
from portrait4d.training.tasks import Moment, Phase, Step
from tests.helpers.loss_stubs import StubCritic, stub_deform, stub_densities, stub_identity, stub_perceptual


class StubReconstructor(nn.Module):
    """Shows given pictures, whatever it is asked for, and notes that.

    Args:
        parts: what a render has, (B, ...) each, by the names of `HeadRender`.

    Attributes:
        scales, motions, cameras, options: of the calls so far, in their order.
        density_scale: factor on `stub_densities`, a leaf.
    """

    def __init__(self, parts: dict[str, Tensor]) -> None:
        super().__init__()
        self.config, self.head, self.parts = ReconstructorConfig(), None, parts
        self.scales: list[Tensor] = []
        self.motions: list[Tensor] = []
        self.cameras: list[Tensor] = []
        self.options: list[RenderOptions] = []
        self.density_scale = torch.ones(1, requires_grad=True)

    def encode_source(self, image: Tensor, motion: Tensor, motion_scale: float | Tensor = 1.0) -> SourceFeatures:
        self.scales.append(torch.as_tensor(motion_scale, dtype=torch.float32).expand(len(image), 1, 1))
        numbers = torch.arange(len(image))
        return SourceFeatures(numbers, numbers, numbers)

    def generate_planes(self, source: SourceFeatures, motion: Tensor, motion_scale: float | Tensor = 1.0) -> Tensor:
        self.motions.append(motion)
        return self.parts.get("planes", source.tokens)

    def head_pose_field(self, params: HeadParams) -> object:
        return stub_deform

    def radiance_field(self, planes: Tensor, deformation: object) -> object:
        return lambda points: SimpleNamespace(densities=stub_densities(points, self.density_scale)[0])

    def render(
        self, planes: Tensor, background: Tensor, camera: Tensor, deformation: object, options: RenderOptions
    ) -> SimpleNamespace:
        """Show the samples whose numbers the background has."""
        self.cameras.append(camera)
        self.options.append(options)
        return SimpleNamespace(
            **{name: part[background] for name, part in self.parts.items() if name != "planes"}, planes=planes
        )


class ToldCritic(StubCritic):
    """A critic that is told the camera in each call, as discriminators are, and remembers its `verdicts`."""

    def __init__(self) -> None:
        super().__init__(torch.empty(0))
        self.verdicts: list[Tensor] = []

    def __call__(self, inputs: DiscriminatorInput, camera: Tensor, generator: torch.Generator) -> Tensor:
        self.camera = camera
        logits = super().__call__(inputs)
        self.verdicts.append(logits.detach())
        return logits


@dataclass
class Turn:
    """What came of a turn: losses handed to back-propagation, in order, and statistics by name."""

    losses: list[float] = field(default_factory=list)
    statistics: dict[str, Tensor] = field(default_factory=dict)

    def take(self, task: ReconTask, batch: object, phase: Phase, images_seen: int) -> "Turn":
        """Let a task do a phase's turn with one batch."""
        generators = keyed_generator("cpu", 0), keyed_generator("cpu", 1)
        step = Step(phase, Moment(images_seen), *generators, self._propagate, self.statistics.__setitem__)
        task.compute_gradients(batch, step)
        return self

    def _propagate(self, loss: Tensor) -> None:
        self.losses.append(loss.item())
        loss.backward()


def stub_task(kind: type[ReconTask], config: ReconV1Training | ReconV2Training, parts: dict[str, Tensor]) -> ReconTask:
    """Return a task whose generator shows `parts`, with stubs for all other networks, too."""
    task = kind.__new__(kind)  # __init__ would load the networks
    task.config, task.ranks, task.run, task.optim = config, Ranks(), config.run, config.optim
    task.networks = {"G": StubReconstructor(parts), "D": ToldCritic()}
    task.perceptual, task.identity, task.r1 = stub_perceptual, stub_identity, R1Weights(mask_alone=True)
    return task


def phase_gradients(task: ReconTask, chunk: object, phase: Phase, images_seen: int) -> dict[str, dict[str, Tensor]]:
    """Let a real task's phase learn as the loop does; return the gradients of each network's parameters by name."""
    for network in task.networks.values():
        network.zero_grad(set_to_none=True)
    with learning(task.networks[phase.network]):
        Turn().take(task, chunk, phase, images_seen)
    return {
        key: {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
        for key, network in task.networks.items()
    }
