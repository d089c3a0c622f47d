"""Sampling heads: the published motion, the built-in one, truncation and seeds, meshes, flags."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from portrait4d.config.experiments import SampleHeadsConfig
from portrait4d.files.errors import UserError
from portrait4d.gen_images_genhead import parse_seeds
from portrait4d.geometry.flame import HeadModel
from portrait4d.inference.sample_heads import HeadSampler, neutral_frames
from portrait4d.models.checkpoints import save_genhead
from tests.helpers.parameter_files import write_parameter_sets
from tests.helpers.tiny_genhead import build_tiny_genhead


@pytest.fixture(scope="module")
def network(ellipsoid: HeadModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("genhead") / "tiny.safetensors"
    save_genhead(path, build_tiny_genhead(ellipsoid))
    return path


def sampler(network: Path, **changes: object) -> HeadSampler:
    return HeadSampler(replace(SampleHeadsConfig(network, Path("unused"), (0,), frames=5, device="cpu"), **changes))


def test_published_rows_turn_their_neck_and_keep_the_rest(network: Path, tmp_path: Path) -> None:
    made = sampler(network, params=write_parameter_sets(tmp_path))
    head = made.sample(2)
    camera, params = made.rows.row(2)
    translation = head.camera[0, :16].view(4, 4)
    assert torch.equal(translation, torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 4], [0, 0, 0, 1]]))
    assert torch.equal(head.camera[:, 16:], camera[:, 16:])
    for frame, angle in enumerate((0, 0.5 * math.pi, math.pi, 1.5 * math.pi, 2 * math.pi)):
        pose = head.frames[frame].pose[0]
        assert pose[0].item() == pytest.approx(0.2 * math.cos(angle) + 0.1, abs=1e-6)
        assert pose[1].item() == pytest.approx(0.4 * math.sin(angle), abs=1e-6)
        assert torch.equal(pose[2:], params.pose[0, 2:])
        assert torch.equal(head.frames[frame].expression, params.expression)


def test_built_in_motion_is_a_closed_loop_in_which_everything_moves() -> None:
    frames = neutral_frames(9)
    for name in ("shape", "expression", "pose", "eye_pose"):
        first, last = getattr(frames[0], name), getattr(frames[-1], name)
        torch.testing.assert_close(first, last, atol=1e-5, rtol=0)
    assert not frames[3].shape.any()
    moved = torch.stack([torch.cat([f.expression, f.pose, f.eye_pose], 1)[0] for f in frames]).std(0) > 0.01
    assert moved.nonzero()[:, 0].tolist() == [0, 1, 100, 101, 103, 106, 107, 109, 110]
    assert len(neutral_frames(1)) == 1


def test_seeds_and_truncation(network: Path) -> None:
    made = sampler(network, trunc_cutoff=None)
    planes = [made.sample(seed).planes for seed in (3, 3, 4)]
    assert torch.equal(planes[0], planes[1]) and not torch.equal(planes[0], planes[2])
    averaged = sampler(network, trunc=0.0, trunc_cutoff=None)
    heads = [averaged.sample(seed) for seed in (3, 4)]
    assert torch.equal(heads[0].planes, heads[1].planes)  # every style is the average
    assert not torch.equal(heads[0].background, heads[1].background)  # the background is never truncated


def test_frames_differ_and_repeat(network: Path) -> None:
    made = sampler(network)
    head = made.sample(0)
    pictures = [made.render(head, frame).image_sr for frame in (0, 0, 1)]
    assert pictures[0].shape == (1, 3, 64, 64)
    assert torch.equal(pictures[0], pictures[1]) and not torch.equal(pictures[0], pictures[2])
    drawn = [sampler(network, random_sampling=True, seed=seed).render(head, 0).image for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_render_size_and_field_of_view(network: Path) -> None:
    wide = sampler(network, render_size=24, fov_deg=24.0)
    head = wide.sample(0)
    result = wide.render(head, 0)
    assert result.image.shape == (1, 3, 24, 24)
    assert head.camera[0, 16].item() == pytest.approx(0.5 / math.tan(math.radians(12)), rel=1e-5)
    narrow = sampler(network, render_size=24)
    covered = narrow.render(narrow.sample(0), 0).masks.head.mean()
    assert result.masks.head.mean() < 0.4 * covered  # the mesh is drawn with the same field of view
    with pytest.raises(UserError, match="--render_size: expected at most 64, the network's picture, got 65"):
        sampler(network, render_size=65)


def test_meshes_lie_in_the_box(network: Path) -> None:
    made = sampler(network, shape_res=16, shape_level=0.0)
    surface = made.surface(made.sample(0), 1)
    assert len(surface.faces) > 10 and abs(surface.vertices).max() <= 0.65
    with pytest.raises(UserError, match="no mesh: .* choose another --shape-level"):
        sampler(network, shape_res=8, shape_level=1e9).surface(made.sample(0), 1)


@pytest.mark.parametrize(
    ("text", "seeds"), [("0-3", (0, 1, 2, 3)), ("7", (7,)), ("5, 1-2,5", (5, 1, 2)), ("4294967295", (2**32 - 1,))]
)
def test_seed_lists(text: str, seeds: tuple[int, ...]) -> None:
    assert parse_seeds(None, None, text) == seeds


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "3-1", "1,,2", "4294967296", "0-99999999999"])
def test_bad_seed_lists(text: str) -> None:
    import click

    with pytest.raises(click.BadParameter):
        parse_seeds(None, None, text)
