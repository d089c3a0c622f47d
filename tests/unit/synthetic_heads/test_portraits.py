"""Written portraits: labels, landmarks and masks agree, motions are smooth, and equal numbers repeat to the byte."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from portrait4d.data.label_checks import label_problems
from portrait4d.data.portrait_folder import MOTION_DIM, PortraitFolder, PreparedPortrait
from portrait4d.geometry.face_alignment import LANDMARKS_98_TO_70
from portrait4d.geometry.head_params import split_label
from portrait4d.geometry.rotations import axis_angle_to_matrix
from portrait4d.synthetic_heads import motions
from portrait4d.synthetic_heads.appearance import sample_appearance
from portrait4d.synthetic_heads.figure import Detail, Figure, build_figure, open_head_model
from portrait4d.synthetic_heads.head_expressions import FULL_EXPRESSION
from portrait4d.synthetic_heads.head_template import open_head_extras
from portrait4d.synthetic_heads.motions import Motion, motion_vector, sample_clip_motions, sample_still_motion
from portrait4d.synthetic_heads.portraits import (
    ARRAY_FOLDERS,
    plan_shot,
    portrait_files,
    view_angles_rad,
    write_portrait,
)
from portrait4d.synthetic_heads.scene import project_landmarks98, render_portrait

SIZE = 96
NECK = (0.12, -0.4, 0.1)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def figure() -> Figure:
    return build_figure(sample_appearance(11), Detail.for_size(SIZE))


def still(neck: tuple[float, float, float] = NECK) -> Motion:
    drawn = sample_still_motion(3, 5)
    return Motion(**vars(drawn) | {"neck_rad": np.array(neck, np.float32)})


@pytest.fixture(scope="module")
def written(figure: Figure, tmp_path_factory: pytest.TempPathFactory) -> PreparedPortrait:
    folder = tmp_path_factory.mktemp("prepared")
    write_portrait(folder, "head.png", figure, still(), SIZE, views=2)
    (portrait,) = PortraitFolder(folder).items()
    return portrait


def test_a_written_portrait_is_what_the_pipeline_reads(written: PreparedPortrait) -> None:
    assert written.load_image().shape == (3, SIZE, SIZE)
    assert written.load_motion().shape == (MOTION_DIM,)
    label = written.load_frame_label(simplified=False)
    assert label_problems(label) == []
    assert np.array_equal(label, written.load_frame_label(simplified=True))
    assert all(path.is_file() for path in portrait_files(written.root, "head", ".png", 2))
    files = [path for path in written.root.rglob("*") if path.is_file()]
    assert sorted(files) == sorted(portrait_files(written.root, "head", ".png", 2))


def test_the_label_s_camera_and_the_upright_head_give_the_landmarks(written: PreparedPortrait) -> None:
    camera, params = split_label(torch.from_numpy(written.load_frame_label(simplified=False))[None])
    head = open_head_model()
    points = project_landmarks98(head, head(params.without_neck_rotation()), camera, SIZE)[0].numpy()
    stored = written.load_landmarks98()
    assert np.abs(points - stored).max() < 1
    np.testing.assert_array_equal(written.load_landmarks68(), stored[LANDMARKS_98_TO_70[:68]])
    assert stored.min() > 0 and stored.max() < SIZE
    turned = project_landmarks98(head, head(params), camera, SIZE)[0].numpy()
    assert np.abs(turned - stored).max() > 5  # the rotation must be used once


def test_the_camera_s_rotation_is_the_neck_s(written: PreparedPortrait) -> None:
    label = torch.from_numpy(written.load_frame_label(simplified=False))
    cam2world = label[:16].view(4, 4)
    torch.testing.assert_close(cam2world[:3, :3].T, axis_angle_to_matrix(label[425:428]), atol=1e-6, rtol=0)
    torch.testing.assert_close(label[425:428], torch.tensor(NECK))
    moved = -cam2world[:3, :3].T @ cam2world[:3, 3]
    np.testing.assert_allclose(moved, still().camera_translation, atol=1e-5)


def test_masks_are_black_and_white_and_agree_with_the_picture(figure: Figure, written: PreparedPortrait) -> None:
    mask = PreparedPortrait("head", written.segmentation_path, written.root).load_image()
    assert set(mask.unique().tolist()) == {-1.0, 1.0}
    rendered = render_portrait(figure, plan_shot(figure.person, still()).params,
                               plan_shot(figure.person, still()).render_camera, SIZE, maps=False)  # fmt: skip
    foreground = rendered.labels > 0
    assert ((mask[0] > 0) == foreground).float().mean() > 0.97
    assert 0.2 < foreground.float().mean() < 0.9
    columns, rows = written.load_landmarks98()[51:60].astype(int).T
    assert (mask[0, rows, columns] > 0).all()


def test_views_change_the_camera_only(figure: Figure, written: PreparedPortrait) -> None:
    main = written.load_frame_label(simplified=False)
    for view, yaw_deg in ((1, -35), (2, 35)):
        label = np.load(written.root / f"views/flame_optim_params/head_v{view:02d}.npy")
        assert np.array_equal(label[16:], main[16:]) and np.abs(label[:16] - main[:16]).max() > 0.1
        distances = [
            np.linalg.norm(plan_shot(figure.person, still(), v).render_camera[0, [3, 7, 11]]) for v in (0, view)
        ]
        np.testing.assert_allclose(*distances, rtol=1e-5)
        assert np.rad2deg(view_angles_rad(view)[0]) == pytest.approx(yaw_deg)
        head, shot = open_head_model(), plan_shot(figure.person, still(), view)
        upright = head(shot.params.without_neck_rotation())
        seen = project_landmarks98(head, head(shot.params), shot.render_camera, SIZE)
        torch.testing.assert_close(project_landmarks98(head, upright, shot.label_camera, SIZE), seen, atol=1, rtol=0)
    assert len({view_angles_rad(view) for view in range(19)}) == 19
    with pytest.raises(ValueError, match="view: expected 0 or more, got -1"):
        plan_shot(figure.person, still(), -1)


def test_equal_numbers_repeat_to_the_byte(written: PreparedPortrait, tmp_path: Path) -> None:
    again = build_figure(sample_appearance(11), Detail.for_size(SIZE))
    write_portrait(tmp_path, "head.png", again, still(), SIZE, views=2)
    for path in portrait_files(tmp_path, "head", ".png", 2):
        assert path.read_bytes() == (written.root / path.relative_to(tmp_path)).read_bytes(), path
    assert not np.array_equal(sample_still_motion(0, 1).expression, sample_still_motion(0, 2).expression)
    assert not np.array_equal(sample_still_motion(0, 1).neck_rad, sample_still_motion(1, 1).neck_rad)
    assert len(ARRAY_FOLDERS) == 5


def test_motion_vector_is_the_documented_projection() -> None:
    neutral = Motion(np.zeros(100, np.float32), *(np.zeros(3, np.float32) for _ in range(4)))
    assert motion_vector(neutral).shape == (548,) and not motion_vector(neutral).any()
    rng = np.random.RandomState(548)
    eye, emotion = rng.standard_normal((7, 6)), rng.standard_normal((17, 30))
    mouth = rng.standard_normal((19, 512))

    gaze = motion_vector(Motion(**vars(neutral) | {"gaze_rad": np.array([0, 0.3, 0], np.float32)}))
    np.testing.assert_allclose(gaze[:6], eye[5] / np.sqrt(7), rtol=1e-5)
    assert not gaze[6:].any()
    jaw = motion_vector(Motion(**vars(neutral) | {"jaw_rad": np.array([0.2, 0, 0], np.float32)}))
    np.testing.assert_allclose(jaw[36:], mouth[16] / np.sqrt(19), rtol=1e-5)
    assert not jaw[:36].any()
    expression = np.zeros(100, np.float32)
    expression[open_head_extras().expression_slot("smile")] = FULL_EXPRESSION
    smile = motion_vector(Motion(**vars(neutral) | {"expression": expression}))
    np.testing.assert_allclose(smile[6:36], emotion[0] / np.sqrt(17), rtol=1e-5)
    np.testing.assert_allclose(smile[36:], mouth[0] / np.sqrt(19), rtol=1e-5)
    assert not smile[:6].any()
    turned = Motion(**vars(neutral) | {"neck_rad": np.ones(3, np.float32)})
    assert not motion_vector(turned).any()
    with pytest.raises(ValueError, match="part: expected one of eye, emotion, mouth, got nose"):
        motions.motion_projection("nose")


def test_clips_move_smoothly_and_blink_and_begin_alike() -> None:
    clip = sample_clip_motions(4, 2, 120)
    neck = np.stack([motion.neck_rad for motion in clip])
    assert np.ptp(neck, axis=0).min() > 0.02 and np.abs(np.diff(neck, axis=0)).max() < 0.06
    assert (np.abs(neck) <= motions.NECK_LIMIT_RAD + 1e-6).all()
    lids = np.stack([motion.expression[open_head_extras().expression_slot("blink_left")] for motion in clip])
    assert lids.max() == pytest.approx(FULL_EXPRESSION) and np.median(lids) == 0
    others = np.stack([motion.expression for motion in clip])
    others[:, [open_head_extras().expression_slot(f"blink_{side}") for side in ("left", "right")]] = 0
    assert np.abs(np.diff(others, axis=0)).max() < 0.6
    for long, short in zip(clip, sample_clip_motions(4, 2, 30), strict=False):
        for name in vars(long):
            np.testing.assert_allclose(getattr(long, name), getattr(short, name), atol=1e-6)
    coarse = sample_clip_motions(4, 2, 24, fps=5)
    assert np.array_equal(np.stack([motion.neck_rad for motion in coarse]), neck[::5])
    with pytest.raises(ValueError, match="fps: expected above 0, got 0"):
        sample_clip_motions(0, 0, 1, fps=0)
    with pytest.raises(ValueError, match="frames: expected 1 or more, got 0"):
        sample_clip_motions(0, 0, 0)
