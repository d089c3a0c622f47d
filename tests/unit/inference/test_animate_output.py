"""What is around animated heads: backgrounds, photos, driving frames, other heads; and options that do not fit."""

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from portrait4d.config.animation import AnimateConfig
from portrait4d.data.image_io import from_uint8, save_image
from portrait4d.files.errors import InputFileError, UserError
from portrait4d.inference.animate_job import run_animation
from tests.helpers.films import write_film
from tests.helpers.stub_tracker import StubTrackers, grey_picture
from tests.unit.inference.conftest import LEVELS
from tests.unit.inference.test_animate_job import decode


@pytest.mark.parametrize("onto", ["source", "driving"])
def test_pasted_heads_leave_the_rest_of_the_picture(animation: AnimateConfig, onto: str) -> None:
    """The stub's crop is the middle 48 x 48 pixels of the picture's 128 x 96."""
    run_animation(replace(animation, paste_back=onto), None, StubTrackers())
    frames = np.stack(decode(animation.out))
    levels = [150] * len(LEVELS) if onto == "source" else LEVELS
    inside = np.zeros((96, 128), bool)
    inside[24:72, 40:88] = True
    changed = abs(frames - np.array(levels)[:, None, None, None]).max(-1)
    assert changed[:, ~inside].max() < 12  # compression alone
    assert changed[:, inside].max() > 40


def test_pasting_onto_frames_without_a_face_leaves_them(animation: AnimateConfig) -> None:
    write_film(Path(animation.driving), [grey_picture(level) for level in (100, 10, 100)])
    run_animation(replace(animation, paste_back="driving"), None, StubTrackers())
    assert abs(decode(animation.out)[1] - 10).max() < 6


def test_driving_pictures_of_other_sizes_are_fitted_into_the_first(animation: AnimateConfig, tmp_path: Path) -> None:
    for number, (height, width) in enumerate([(96, 128), (96, 192), (48, 64)]):
        save_image(tmp_path / f"clip/{number}.png", torch.full((3, height, width), 0.5))
    pictures = replace(animation, driving=str(tmp_path / "clip"), paste_back="driving")
    assert run_animation(pictures, None, StubTrackers()).size == (128, 96)
    first, wide, small = decode(animation.out)
    level = 0.75 * 255
    assert abs(first[:20] - level).max() < 12 and abs(small[:20] - level).max() < 12
    assert wide[:12].max() < 20 and wide[-12:].max() < 20 and abs(wide[20:76, :20] - level).max() < 12


@pytest.mark.parametrize("option", ["driving", "source", "save_template", "network"])
def test_inputs_are_not_overwritten(animation: AnimateConfig, tmp_path: Path, option: str) -> None:
    template = tmp_path / "t.safetensors"
    template.write_bytes(b"kept")
    (tmp_path / "link").symlink_to(tmp_path)
    driving, flag, changes = {
        "driving": (animation.driving, "--out", {"out": tmp_path / "link/in.mp4"}),
        "source": (animation.driving, "--out", {"out": tmp_path / "a.mp4", "source": (tmp_path / "a.mp4",)}),
        "save_template": (str(template), "--save-template", {"save_template": template}),
        "network": (animation.driving, "--save-template", {"save_template": template, "network": template}),
    }[option]
    before = Path(driving).read_bytes()
    with pytest.raises(UserError, match=f"{flag} .*: would replace what it is made from; name another file"):
        run_animation(replace(animation, driving=driving, **changes), None, StubTrackers())
    assert Path(driving).read_bytes() == before and template.read_bytes() == b"kept"


def test_backgrounds(animation: AnimateConfig) -> None:
    run_animation(replace(animation, background="colour", colour="#ff8000"), None, StubTrackers())
    frame = decode(animation.out)[0]
    painted = (abs(frame - [255, 128, 0]).max(-1) < 30).mean()
    assert 0.02 < painted < 0.98
    film = animation.out.with_suffix(".webm")
    report = run_animation(replace(animation, background="transparent", out=film), None, StubTrackers())
    assert report.sound == "libopus"
    with av.open(str(film)) as container:
        stream, decoder = container.streams.video[0], av.CodecContext.create("libvpx-vp9", "r")
        pictures = [picture for packet in container.demux(stream) for picture in decoder.decode(packet)]
    opacity = pictures[0].to_ndarray(format="rgba")[..., 3].astype(float)
    assert opacity.min() < 20 and opacity.max() > 200
    np.testing.assert_allclose((opacity < 20).mean(), painted, atol=0.15)


@pytest.mark.parametrize(
    ("layout", "size"), [("result", (128, 64)), ("side-by-side", (192, 128)), ("grid", (128, 128))]
)
def test_several_sources(animation: AnimateConfig, layout: str, size: tuple[int, int]) -> None:
    photos = animation.out.with_name("photos")
    for name, level in (("a", 80), ("b", 180)):
        save_image(photos / f"{name}.png", from_uint8(torch.from_numpy(grey_picture(level)).permute(2, 0, 1)))
    report = run_animation(replace(animation, source=(photos,), layout=layout), None, StubTrackers())
    assert report.size == size
    frame = decode(animation.out)[1]
    if layout == "side-by-side":
        assert abs(frame[:64, :64] - 80).max() < 12 and abs(frame[64:, :64] - 180).max() < 12
        assert abs(frame[16:48, 140:180] - 140).max() < 12  # the driver, black above and below
    else:
        results = [frame[:64, :64], frame[:64, 64:]] if layout == "result" else [frame[:64, 64:], frame[64:, :64]]
        assert abs(results[0] - results[1]).mean() > 3


def test_cameras(animation: AnimateConfig, tmp_path: Path) -> None:
    write_film(Path(animation.driving), [grey_picture(180)] * 5)
    path = tmp_path / "camera.json"
    path.write_text('{"keyframes": [{"time_s": 0, "yaw_deg": -40}, {"time_s": 0.16, "yaw_deg": 40}]}')
    still, frontal, moving = (
        decode(run_animation(replace(animation, camera=camera), None, StubTrackers()).out)
        for camera in ("driver", "frontal", str(path))
    )
    assert abs(still[0] - still[4]).mean() < 1 < abs(still[0] - frontal[0]).mean()
    across = abs(moving[0] - moving[4]).mean()
    assert abs(moving[2] - still[2]).mean() < 0.3 * across  # half-way from -40 to 40 degrees
    with pytest.raises(InputFileError, match="no such camera, expected driver, frontal, orbit or a .json file"):
        run_animation(replace(animation, camera="nowhere"), None, StubTrackers())


def test_photos_without_a_face_are_named(animation: AnimateConfig) -> None:
    save_image(animation.source[0], torch.full((3, 96, 128), -1.0))
    with pytest.raises(InputFileError, match="photo.png: no face found; take a brighter picture"):
        run_animation(animation, None, StubTrackers())


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"out": Path("film.avi")}, r"--out film.avi: expected .mp4, .webm, .mov"),
        ({"source": ()}, "--source: expected at least one"),
        ({"background": "transparent"}, "a transparent film is .webm or .mov"),
        ({"background": "colour", "colour": "green"}, "--colour green: expected #rrggbb"),
        ({"background": "colour", "paste_back": "source"}, "--background: has no effect with --paste-back"),
        ({"camera": "orbit", "paste_back": "source"}, "--camera: expected driver with --paste-back"),
        ({"layout": "grid", "paste_back": "driving"}, "--paste-back driving: goes with --layout result"),
        ({"driving": "webcam:front"}, "--driving webcam:front: expected a number"),
        ({"save_template": Path("t.npz")}, "--save-template t.npz: expected the suffix .safetensors"),
        ({"expression_scale": -1.0}, "--expression-scale -1.0: expected 0 to 3"),
        ({"driving": "/nowhere.mp4"}, "/nowhere.mp4: no such file"),
        ({"source": (Path("/nowhere"),)}, "/nowhere: no such file or folder"),
    ],
)
def test_options_that_do_not_fit(animation: AnimateConfig, changes: dict, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        run_animation(replace(animation, **changes), None, StubTrackers())
    assert not animation.out.exists()
