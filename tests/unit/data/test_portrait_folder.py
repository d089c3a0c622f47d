"""Prepared folders: what is listed, what is loaded, and one clear line for everything that can be wrong."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from portrait4d.data.portrait_folder import PortraitFolder, PreparedPortrait
from portrait4d.files.errors import InputFileError
from tests.helpers.raw_folders import painted_label

SHARED = Path(__file__).resolve().parents[4] / "shared"


def add_image(root: Path, name: str, size: tuple[int, int] = (8, 8)) -> None:
    (root / "align_images").mkdir(parents=True, exist_ok=True)
    suffix = name.rsplit(".", 1)[-1].lower()
    kind = {"jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP"}.get(suffix, "PNG")
    Image.new("RGB", size, (10, 20, 30)).save(root / "align_images" / name, format=kind)


def add_array(root: Path, folder: str, array: np.ndarray, stem: str = "p") -> Path:
    (root / folder).mkdir(parents=True, exist_ok=True)
    path = root / folder / f"{stem}.npy"
    np.save(path, array, allow_pickle=True)
    return path


@pytest.fixture
def portrait(tmp_path: Path) -> PreparedPortrait:
    add_image(tmp_path, "p.png")
    return PortraitFolder(tmp_path).items()[0]


def assert_one_line(error: InputFileError, path: Path) -> None:
    message = str(error)
    assert message.startswith(f"{path}: ")
    assert "; " in message
    assert "\n" not in message


# ---------------------------------------------------------------------------------------------------- listing


def test_items_are_sorted_and_other_files_are_passed_over(tmp_path: Path) -> None:
    for name in ("b.PNG", "a b.c.JPeG", "z.webp", "A.jpg", ".hidden.png", "notes.txt", "c.gif"):
        add_image(tmp_path, name)
    (tmp_path / "align_images" / "folder.png").mkdir()
    items = PortraitFolder(str(tmp_path)).items()
    assert [item.stem for item in items] == ["A", "a b.c", "b", "z"]
    assert [item.image_path.name for item in items] == ["A.jpg", "a b.c.JPeG", "b.PNG", "z.webp"]
    assert all(item.root == tmp_path for item in items)
    assert items[1].array_path("motion_feats") == tmp_path / "motion_feats" / "a b.c.npy"
    assert items[2].segmentation_path == tmp_path / "segs" / "b.PNG"


def test_missing_root(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="no such folder") as caught:
        PortraitFolder(tmp_path / "nowhere")
    assert_one_line(caught.value, tmp_path / "nowhere")


def test_missing_align_images(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="no align_images in this folder; .*preprocess_dir") as caught:
        PortraitFolder(tmp_path)
    assert_one_line(caught.value, tmp_path)


def test_no_picture(tmp_path: Path) -> None:
    (tmp_path / "align_images").mkdir()
    (tmp_path / "align_images" / "notes.txt").touch()
    with pytest.raises(InputFileError, match="no picture") as caught:
        PortraitFolder(tmp_path).items()
    assert_one_line(caught.value, tmp_path / "align_images")


def test_two_pictures_with_one_stem(tmp_path: Path) -> None:
    add_image(tmp_path, "p.png")
    add_image(tmp_path, "p.jpg")
    with pytest.raises(InputFileError, match=r"has the same name as p\.jpg but for the suffix") as caught:
        PortraitFolder(tmp_path).items()
    assert_one_line(caught.value, tmp_path / "align_images" / "p.png")


# ---------------------------------------------------------------------------------------------------- loading


def test_good_files(portrait: PreparedPortrait) -> None:
    rng = np.random.default_rng(0)
    points68, points98 = rng.uniform(0, 512, (68, 3)), rng.uniform(0, 512, (98, 2))
    fitted, simplified = (painted_label(yaw_rad)[0].numpy() for yaw_rad in (0.1, 0.2))
    simplified = simplified.astype(np.float64)
    motion = rng.normal(size=600).astype(np.float32)
    add_array(portrait.root, "3dldmks_align", points68)
    add_array(portrait.root, "2dldmks_align", points98)
    add_array(portrait.root, "flame_optim_params", fitted)
    add_array(portrait.root, "bfm2flame_params_simplified", simplified)
    assert portrait.load_motion() is None
    add_array(portrait.root, "motion_feats", motion)
    for loaded, expected in (
        (portrait.load_landmarks68(), points68[:, :2]),
        (portrait.load_landmarks98(), points98),
        (portrait.load_frame_label(simplified=False), fitted),
        (portrait.load_frame_label(simplified=True), simplified),
        (portrait.load_motion(), motion[:548]),
    ):
        assert loaded.dtype == np.float32
        np.testing.assert_array_equal(loaded, expected.astype(np.float32))
    assert portrait.load_image(8).shape == (3, 8, 8)
    assert portrait.load_image(4).shape == (3, 4, 4)


def test_whole_pixel_landmarks_are_accepted(portrait: PreparedPortrait) -> None:
    add_array(portrait.root, "3dldmks_align", np.arange(136, dtype=np.int64).reshape(68, 2))
    assert portrait.load_landmarks68()[1].tolist() == [2.0, 3.0]


LOADERS: dict[str, tuple[str, Callable[[PreparedPortrait], object]]] = {
    "landmarks68": ("3dldmks_align", PreparedPortrait.load_landmarks68),
    "landmarks98": ("2dldmks_align", PreparedPortrait.load_landmarks98),
    "fitted": ("flame_optim_params", lambda portrait: portrait.load_frame_label(simplified=False)),
    "simplified": ("bfm2flame_params_simplified", lambda portrait: portrait.load_frame_label(simplified=True)),
    "motion": ("motion_feats", PreparedPortrait.load_motion),
}
GOOD = {
    "landmarks68": np.zeros((68, 2)),
    "landmarks98": np.zeros((98, 2)),
    "fitted": np.zeros(437, np.float32),
    "simplified": np.zeros(437, np.float32),
    "motion": np.zeros(548, np.float32),
}


@pytest.mark.parametrize("kind", ["landmarks68", "landmarks98", "fitted", "simplified"])
def test_missing_array(portrait: PreparedPortrait, kind: str) -> None:
    folder, load = LOADERS[kind]
    with pytest.raises(InputFileError, match=r"no such file; .*data_preprocess/") as caught:
        load(portrait)
    assert_one_line(caught.value, portrait.root / folder / "p.npy")


@pytest.mark.parametrize("kind", list(LOADERS))
@pytest.mark.parametrize("damage", ["empty", "text", "noise", "header", "cut", "archive", "pickle", "folder"])
def test_damaged_array(portrait: PreparedPortrait, kind: str, damage: str) -> None:
    folder, load = LOADERS[kind]
    path = add_array(portrait.root, folder, GOOD[kind])
    whole = path.read_bytes()
    if damage == "archive":
        with path.open("wb") as file:
            np.savez(file, GOOD[kind])
    elif damage == "pickle":
        add_array(portrait.root, folder, np.array({"id": GOOD[kind]}, dtype=object))
    elif damage == "folder":
        path.unlink()
        path.mkdir()
    else:
        broken = whole[:10] + b"{'descr': (((" + whole[23:]
        contents = {
            "empty": b"",
            "text": b"1 2 3\n",
            "noise": bytes(range(1, 200)),
            "header": broken,
            "cut": whole[:-5],
        }
        path.write_bytes(contents[damage])
    with pytest.raises(InputFileError) as caught:
        load(portrait)
    assert_one_line(caught.value, path)


@pytest.mark.parametrize("kind", list(LOADERS))
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_numbers_that_are_not_finite_in_float32(portrait: PreparedPortrait, kind: str, value: float) -> None:
    folder, load = LOADERS[kind]
    array = GOOD[kind].astype(np.float64)
    array.flat[3] = value
    path = add_array(portrait.root, folder, array)
    with pytest.raises(InputFileError, match="expected finite numbers, got 1 NaN or infinite among") as caught:
        load(portrait)
    assert_one_line(caught.value, path)


@pytest.mark.parametrize(
    ("kind", "array", "message"),
    [
        ("fitted", np.zeros(400, np.float32), r"expected 437 float32 numbers \(frame label\), got shape \(400,\)"),
        ("fitted", np.zeros((1, 437), np.float32), r"got shape \(1, 437\)"),
        ("simplified", np.zeros(437, np.int32), r"got shape \(437,\) of int32"),
        ("simplified", np.zeros(437, np.complex64), r"got shape \(437,\) of complex64"),
        (
            "motion",
            np.zeros(547, np.float32),
            r"expected at least 548 float32 numbers \(motion vector\), got shape \(547,\)",
        ),
        ("motion", np.zeros((1, 548), np.float32), r"got shape \(1, 548\)"),
        ("motion", np.zeros(548, "U3"), r"got shape \(548,\) of <U3"),
        (
            "landmarks68",
            np.zeros((98, 2)),
            r"expected 68 points as \(68, 2\) numbers \(landmarks\), got shape \(98, 2\)",
        ),
        ("landmarks68", np.zeros((68, 1)), r"got shape \(68, 1\)"),
        ("landmarks68", np.zeros(136), r"got shape \(136,\)"),
        ("landmarks68", np.zeros((68, 2), bool), r"got shape \(68, 2\) of bool"),
        (
            "landmarks98",
            np.zeros((68, 2)),
            r"expected 98 points as \(98, 2\) numbers \(landmarks\), got shape \(68, 2\)",
        ),
    ],
)
def test_wrong_arrays(portrait: PreparedPortrait, kind: str, array: np.ndarray, message: str) -> None:
    folder, load = LOADERS[kind]
    path = add_array(portrait.root, folder, array)
    with pytest.raises(InputFileError, match=message) as caught:
        load(portrait)
    assert_one_line(caught.value, path)


@pytest.mark.parametrize("simplified", [False, True])
@pytest.mark.parametrize(
    ("places", "value", "problem"),
    [
        (slice(None), 0.0, r"expected focal lengths above 0, got \[0\.0, 0\.0\]; make it with"),
        (slice(None), 1e30, r"expected numbers below 1000, got 1e\+30"),
        (slice(20, 21), -4.0, "expected focal lengths above 0"),
        (slice(0, 1), 2.0, "its rotation is none"),
        (slice(15, 16), 0.0, "last row of cam2world"),
        (slice(300, 301), -1e3, "expected numbers below 1000, got 1e\\+03"),
    ],
)
def test_labels_of_no_camera(
    portrait: PreparedPortrait, simplified: bool, places: slice, value: float, problem: str
) -> None:
    label = painted_label(0.2)[0].numpy().copy()
    label[places] = value
    path = add_array(portrait.root, LOADERS["simplified" if simplified else "fitted"][0], label)
    with pytest.raises(InputFileError, match=problem) as caught:
        portrait.load_frame_label(simplified)
    assert_one_line(caught.value, path)


def test_labels_that_are_hard_to_believe_are_loaded(portrait: PreparedPortrait) -> None:
    label = painted_label(0.2)[0].numpy().copy()
    label[[3, 7, 11]] = 0  # the camera in the neck
    label[30] = 40
    add_array(portrait.root, "flame_optim_params", label)
    assert np.array_equal(portrait.load_frame_label(simplified=False), label)


def test_bad_pictures(tmp_path: Path) -> None:
    add_image(tmp_path, "wide.png", (9, 8))
    (tmp_path / "align_images" / "text.png").write_text("not a picture\n")
    os.symlink(tmp_path / "gone.png", tmp_path / "align_images" / "link.png")
    link, text, wide = PortraitFolder(tmp_path).items()
    for item, message in ((link, "no such file"), (text, "not a picture"), (wide, "expected a square picture")):
        with pytest.raises(InputFileError, match=message) as caught:
            item.load_image(8)
        assert_one_line(caught.value, item.image_path)


def test_real_folder() -> None:
    root = SHARED / "real" / "portraits"
    if not root.is_dir():
        pytest.skip(f"needs the photos in {root}, which stay outside the repository")
    items = PortraitFolder(root).items()
    assert [item.stem for item in items] == [f"portrait-{k:02d}" for k in range(1, 9)]
    for item in items:
        assert item.load_image(512).shape == (3, 512, 512)
        assert item.load_landmarks68().shape == (68, 2)
        assert item.load_landmarks98().shape == (98, 2)
        assert item.load_frame_label(simplified=False)[15] == 1
        assert item.load_frame_label(simplified=True)[15] == 1
        assert item.load_motion() is None
