"""Pictures of the open head world agree with their masks, maps and landmarks, differ between people, and repeat."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from portrait4d.geometry.cameras import intrinsics_from_fov, join_camera, orbit_cam2world
from portrait4d.geometry.face_alignment import LANDMARKS_98_TO_70
from portrait4d.rendering.mesh_maps import CANONICAL_SCALE, render_part_masks
from portrait4d.synthetic_heads.appearance import Appearance, hair_cut, sample_appearance
from portrait4d.synthetic_heads.figure import Detail, Figure, build_figure, open_head_model
from portrait4d.synthetic_heads.head_expressions import FULL_EXPRESSION
from portrait4d.synthetic_heads.head_template import open_head_extras
from portrait4d.synthetic_heads.scene import Label, Portrait, frame_of, render_portrait

SIZE = 128


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing from more threads, and lose much where other work keeps the cores busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def camera(yaw_rad: float = 0.0) -> torch.Tensor:
    pose = orbit_cam2world(torch.tensor(yaw_rad), torch.tensor(0.0), (0.0, 0.0, 4.3))
    return join_camera(pose, intrinsics_from_fov())[None]


def bald_person() -> Appearance:
    seed = next(s for s in range(500) if _is_plain(sample_appearance(s)))
    return sample_appearance(seed)


def _is_plain(person: Appearance) -> bool:
    return person.hair_name == "bald" and not person.beard and not person.glasses


@pytest.fixture(scope="module")
def figure() -> Figure:
    return build_figure(bald_person(), Detail.for_size(SIZE))


def shoot(figure: Figure, yaw_rad: float = 0.0, jaw_rad: float = 0.0, size: int = SIZE, **shares: float) -> Portrait:
    expression = torch.zeros(100)
    for name, share in shares.items():
        expression[open_head_extras().expression_slot(name)] = share * FULL_EXPRESSION
    params = frame_of(figure.person, expression, torch.tensor([jaw_rad, 0.0, 0.0]))
    return render_portrait(figure, params, camera(yaw_rad), size)


@pytest.fixture(scope="module")
def portrait(figure: Figure) -> Portrait:
    return shoot(figure)


def test_shapes_and_ranges(portrait: Portrait) -> None:
    assert portrait.image.shape == portrait.normals.shape == portrait.uv.shape == (3, SIZE, SIZE)
    assert portrait.mask.shape == portrait.depth.shape == (1, SIZE, SIZE)
    assert portrait.image.isfinite().all() and portrait.image.abs().max() <= 1
    assert portrait.mask.min() == 0 and portrait.mask.max() == 1
    inside = portrait.depth[0] > 0
    torch.testing.assert_close(portrait.normals.norm(dim=0)[inside], torch.ones(int(inside.sum())))
    assert set(range(len(Label))) - set(portrait.labels.unique().tolist()) <= {
        Label.GLASSES,
        Label.MOUTH,
        Label.HAIR,
        Label.CLOTH,
    }


def test_mask_labels_and_depth_agree(portrait: Portrait) -> None:
    foreground = portrait.labels != Label.BACKGROUND
    assert torch.equal(foreground, portrait.depth[0] > 0)
    assert (portrait.mask[0][foreground] > 0).all() and (portrait.mask[0][~foreground] < 1).all()


@pytest.mark.parametrize("yaw", [0.0, 0.5])
def test_uv_map_mask_and_landmarks_agree_within_a_pixel(figure: Figure, yaw: float) -> None:
    portrait = shoot(figure, yaw)
    head = open_head_model()
    extras = open_head_extras()
    corners = head.canonical_vertices[head.faces[extras.landmark98_faces]]
    canonical = (corners * torch.from_numpy(extras.landmark98_barycentrics)[..., None]).sum(1) / CANONICAL_SCALE
    assert (portrait.uv.abs().sum(0) > 0)[portrait.mask[0] == 0].sum() == 0
    # where the map shows a landmark's place on the face, the landmark must have been projected
    for number in (54, 33, 46, 57, 16, 60, 72, 76, 82):
        distance = (portrait.uv - canonical[number, :, None, None]).norm(dim=0)
        distance[portrait.uv.abs().sum(0) == 0] = 9
        if distance.min() > 0.012:
            continue  # turned away
        row, column = divmod(int(distance.argmin()), SIZE)
        gap = torch.tensor([column + 0.5, row + 0.5]) - portrait.landmarks98[number]
        assert gap.abs().max() < 1.5, number


def test_landmarks_fall_on_their_labels(portrait: Portrait) -> None:
    assert torch.equal(portrait.landmarks68, portrait.landmarks98[LANDMARKS_98_TO_70[:68]])

    def labels_near(number: int) -> set[int]:
        column, row = portrait.landmarks98[number].long().tolist()
        return set(portrait.labels[row - 2 : row + 3, column - 2 : column + 3].unique().tolist())

    assert {Label.NOSE} & labels_near(54)
    for number in (96, 97, 62, 70):
        assert {Label.EYES} & labels_near(number)
    for number in (34, 35, 44, 45):
        assert {Label.BROWS} & labels_near(number)
    assert {Label.UPPER_LIP} & labels_near(79) and {Label.LOWER_LIP} & labels_near(85)
    assert {Label.BACKGROUND, Label.NECK} & labels_near(16) or portrait.landmarks98[16, 1] > 0.7 * SIZE


def test_blinking_hides_the_eyes_and_the_jaw_shows_the_mouth(figure: Figure, portrait: Portrait) -> None:
    def count(picture: Portrait, label: Label) -> int:
        column, row = picture.landmarks98[60:76].mean(0).long().tolist()
        del column
        near = picture.labels[row - 9 : row + 10] if label == Label.EYES else picture.labels
        return int((near == label).sum())

    blinking = shoot(figure, blink_left=1.0, blink_right=1.0)
    opened = shoot(figure, jaw_rad=0.28)
    assert count(blinking, Label.EYES) < 0.4 * count(portrait, Label.EYES)
    assert count(opened, Label.MOUTH) > 60 + count(portrait, Label.MOUTH)


def test_eye_and_mouth_masks_are_not_empty_at_512(figure: Figure) -> None:
    params = frame_of(figure.person, torch.zeros(100))
    masks = render_part_masks(figure.head, params, camera(), 512)
    assert masks.eye.sum() > 500 and masks.mouth.sum() > 100


def test_people_differ_and_repeat_exactly() -> None:
    pictures = []
    for seed in (3, 4, 5, 3):
        pictures.append(shoot(build_figure(sample_appearance(seed), Detail.for_size(64)), size=64).image)
    assert torch.equal(pictures[0], pictures[3])
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (pictures[a] - pictures[b]).abs().mean() > 0.08


def test_hair_is_drawn_for_every_style() -> None:
    rng = np.random.default_rng(0)
    for name in ("short", "wavy", "bun"):
        person = Appearance(**vars(bald_person()) | {"hair_name": name, "hair": hair_cut(name, rng)})
        labels = shoot(build_figure(person, Detail(False, 400, 100, 6)), size=64).labels
        assert (labels == Label.HAIR).sum() > 100, name
    with pytest.raises(ValueError, match="hair style: expected bald, buzz, short, .*, got beehive"):
        hair_cut("beehive", rng)


def test_wrong_input_is_refused(figure: Figure) -> None:
    with pytest.raises(ValueError, match="seed: expected 0 or more, got -1"):
        sample_appearance(-1)
    params = frame_of(figure.person, torch.zeros(100))
    with pytest.raises(ValueError, match="frame: expected one"):
        render_portrait(figure, params, camera()[0], 64)
