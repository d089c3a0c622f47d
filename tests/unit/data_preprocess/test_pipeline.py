"""The pipeline with stand-ins for its networks: files, order, following, resuming, and paste-back."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from data_preprocess.bfm_to_flame.bfm_files import load_coefficients
from data_preprocess.face_boxes import FaceBoxes
from data_preprocess.face_networks import FaceNetworks
from data_preprocess.pipeline import PreprocessConfig, run_preprocessing
from data_preprocess.portrait_crop import fit_placement
from data_preprocess.prepared_files import load_origin
from portrait4d.data.image_io import load_image, save_image, save_video
from portrait4d.data.portrait_folder import PortraitFolder
from portrait4d.files.errors import UserError
from portrait4d.files.safe_pickle import NUMPY_RULES, read_object_npy
from portrait4d.geometry.face_alignment import warp_affine
from tests.helpers.stub_faces import PORTRAITS, StubNetworks, template

SIDE = 96


def draw_face(x: int, y: int = 30, size: int = 32, side: int = SIDE) -> Tensor:
    """Return a dark picture with a bright square at (x, y), shaded so that a shift shows."""
    image = torch.full((3, side, side), -1.0)
    image[:, y : y + size, x : x + size] = torch.linspace(0, 1, size)
    return image


def write_clip(folder: Path, places: list[int]) -> None:
    for number, x in enumerate(places):
        save_image(folder / f"{number:03d}.png", draw_face(x))


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def stored_networks() -> FaceNetworks:
    """Return stand-ins that know the synthetic portraits by their brightness, and give their stored landmarks."""
    known = {float(item.load_image().double().sum()): item for item in PORTRAITS}

    def points98(images: list[Tensor], boxes: Tensor, enlargement: float) -> Tensor:
        items = [known[float(image.double().sum())] for image in images]
        return torch.stack([torch.from_numpy(item.load_landmarks98()).double() for item in items])

    def points68(images: list[Tensor], boxes: Tensor) -> Tensor:
        items = [known[float(image.double().sum())] for image in images]
        return torch.stack([torch.from_numpy(item.load_landmarks68()) for item in items])

    return replace(StubNetworks().networks, landmarks98=points98, landmarks68=points68)


def test_synthetic_portraits_are_cut_at_their_landmarks(tmp_path: Path) -> None:
    networks = replace(stored_networks(), draw=lambda faces: torch.cat([faces.crops, -faces.crops], -1))
    report = run_preprocessing(PreprocessConfig(PORTRAITS[0].image_path.parent, tmp_path, "cpu", batch=5), networks)
    assert (report.written, report.skipped, report.failures) == (12, 0, [])
    prepared = PortraitFolder(tmp_path).items()
    assert [item.image_path.name for item in prepared] == [item.image_path.name for item in PORTRAITS]
    for item, original in zip(prepared, PORTRAITS, strict=True):
        points98, points68 = (np.load(item.array_path(name)) for name in ("2dldmks_align", "3dldmks_align"))
        assert (
            points98.shape == (98, 2) and points68.shape == (68, 2) and points98.dtype == points68.dtype == np.float64
        )
        fitted = fit_placement(
            torch.from_numpy(points98), 513
        )  # 512 - y is the file's y up: preprocess-pipeline.md §5.4
        assert fitted.scale == pytest.approx(1, abs=1e-12)
        assert all(256 <= shift < 256.5 for shift in fitted.shift)
        origin = load_origin(tmp_path, item.image_path.name)
        assert (origin.source, origin.number) == (original.image_path.name, int(original.stem))
        np.testing.assert_array_equal(origin.landmarks98, original.load_landmarks98().astype(np.float64))
        np.testing.assert_array_equal(origin.transform.landmarks_to_crop(origin.landmarks68), points68)
        values = read_object_npy(item.array_path("bfm_params"), NUMPY_RULES)
        shapes = {key: value.shape for key, value in values.items()}
        sizes = {"id": 80, "exp": 64, "tex": 80, "angle": 3, "gamma": 27, "trans": 3}
        assert shapes == {key: (1, size) for key, size in sizes.items()}
        assert load_coefficients(item.array_path("bfm_params")).identity.dtype == np.float32
        assert load_image(tmp_path / "bfm_vis" / item.image_path.name).shape == (3, 224, 448)


def test_a_portrait_pasted_back_lies_where_it_was(tmp_path: Path) -> None:
    original = PORTRAITS[3]
    run_preprocessing(PreprocessConfig(original.image_path, tmp_path, "cpu"), stored_networks())
    portrait = load_image(tmp_path / "align_images" / original.image_path.name)
    with np.load(tmp_path / "crop_transforms" / f"{original.stem}.npz") as content:
        back = torch.from_numpy(content["crop_to_image"])[None]
    pasted = warp_affine(portrait[None], back, (256, 256))[0]
    inside = warp_affine(torch.ones(1, 3, 512, 512), back, (256, 256))[0] > 0.999
    error = (pasted - original.load_image())[inside].abs()
    assert inside.float().mean() > 0.9
    assert error.mean() < 0.02


def test_a_followed_face_is_detected_once_and_results_are_in_order(tmp_path: Path) -> None:
    places = [10, 14, 18, 22, 26, 30]
    write_clip(tmp_path / "in", places)
    stub = StubNetworks()
    config = PreprocessConfig(tmp_path / "in", tmp_path / "out", "cpu", batch=4, video=True)
    report = run_preprocessing(config, stub.networks)
    assert (report.written, stub.detected) == (6, 1)
    for number, x in enumerate(places):
        origin = load_origin(tmp_path / "out", f"{number:03d}.png")
        torch.testing.assert_close(origin.landmarks98.amin(0), torch.tensor([x, 30]).double(), atol=1e-9, rtol=0)
        box = draw_box(places[number - 1 if number else 0])
        torch.testing.assert_close(origin.box.float(), box, atol=1e-5, rtol=0)


def draw_box(x: int) -> Tensor:
    return torch.tensor([x, 30, x + 32, 62]).float()


def test_a_lost_face_is_detected_again(tmp_path: Path) -> None:
    write_clip(tmp_path / "in", [10, 12])
    save_image(tmp_path / "in/002.png", torch.full((3, SIDE, SIDE), -1.0))  # no face
    save_image(tmp_path / "in/003.png", draw_face(20))
    save_image(tmp_path / "in/004.png", draw_face(84, 84, 12))  # beyond the crop around the last one
    stub = StubNetworks()
    report = run_preprocessing(PreprocessConfig(tmp_path / "in", tmp_path / "out", "cpu", video=True), stub.networks)
    assert (report.written, stub.detected) == (4, 4)
    assert report.failures == [f"{tmp_path / 'in/002.png'}: no face found"]


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("removed", [(4, 5, 6), (2, 3)])
def test_a_resumed_clip_is_as_if_it_had_not_been_interrupted(
    tmp_path: Path, smooth: bool, removed: tuple[int, ...]
) -> None:
    write_clip(tmp_path / "in", [10, 17, 12, 25, 22, 30, 28])
    config = PreprocessConfig(tmp_path / "in", tmp_path / "out", "cpu", batch=3, video=True, smooth=smooth)
    run_preprocessing(config, StubNetworks().networks)
    before = contents(tmp_path / "out")
    for number in removed:
        (tmp_path / f"out/align_images/{number:03d}.png").unlink()
    (tmp_path / "out/align_images/.tmp-killed.png").write_bytes(b"half")
    stub = StubNetworks()
    report = run_preprocessing(config, stub.networks)
    assert (report.written, report.skipped, stub.detected) == (len(removed), 7 - len(removed), 0)
    assert contents(tmp_path / "out") == before


def test_smoothing_holds_a_shaking_face(tmp_path: Path) -> None:
    write_clip(tmp_path / "in", [30, 31] * 6)
    config = PreprocessConfig(tmp_path / "in", tmp_path / "plain", "cpu", video=True)
    run_preprocessing(config, StubNetworks().networks)
    run_preprocessing(replace(config, save_dir=tmp_path / "smooth", smooth=True), StubNetworks().networks)

    def shaking(folder: str) -> float:
        shifts = [load_origin(tmp_path / folder, f"{k:03d}.png").transform.placement.shift[0] for k in range(12)]
        return float(np.abs(np.diff(shifts)).mean())

    assert shaking("plain") == pytest.approx(1, abs=1e-9)
    assert shaking("smooth") < 0.5


def test_films_keep_their_frame_numbers(tmp_path: Path) -> None:
    frames = [draw_face(10), torch.full((3, SIDE, SIDE), -1.0), draw_face(20)]
    (tmp_path / "in").mkdir()
    save_video(tmp_path / "in/film.mp4", frames, 25)
    save_image(tmp_path / "in/still.jpg", draw_face(40))
    config = PreprocessConfig(tmp_path / "in", tmp_path / "out", "cpu", image_format="jpg")
    report = run_preprocessing(config, StubNetworks().networks)
    assert report.failures == [f"{tmp_path / 'in/film.mp4'}, frame 1: no face found"]
    assert [item.stem for item in PortraitFolder(tmp_path / "out/film").items()] == ["000000", "000002"]
    assert [item.image_path.name for item in PortraitFolder(tmp_path / "out").items()] == ["still.jpg"]
    assert load_origin(tmp_path / "out/film", "000002.jpg").source == "film.mp4"


def two_faces() -> FaceNetworks:
    """Return stand-ins that find a face at (8, 30) and a smaller one, of a better score, at (60, 40)."""
    boxes = torch.tensor([[60.0, 40, 80, 60], [8, 30, 40, 62]])
    found = FaceBoxes(boxes, torch.tensor([0.99, 0.9]), torch.zeros(2, 5, 2))

    def points98(images: list[Tensor], some: Tensor, enlargement: float) -> Tensor:
        return template(98) * (some[:, None, 2:] - some[:, None, :2]).double() + some[:, None, :2]

    return replace(StubNetworks().networks, detect=lambda images: [found] * len(images), landmarks98=points98)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("largest", {"a.png": [8, 30]}),
        ("center", {"a.png": [60, 40]}),
        ("all", {"a_0.png": [60, 40], "a_1.png": [8, 30]}),
    ],
)
def test_several_faces(tmp_path: Path, choice: str, expected: dict[str, list[int]]) -> None:
    save_image(tmp_path / "a.png", draw_face(8, side=136 if choice == "center" else SIDE))
    config = PreprocessConfig(tmp_path / "a.png", tmp_path / "out", "cpu", face=choice)
    report = run_preprocessing(config, two_faces())
    assert report.written == len(expected)
    assert [item.image_path.name for item in PortraitFolder(tmp_path / "out").items()] == list(expected)
    for index, (name, corner) in enumerate(expected.items()):
        origin = load_origin(tmp_path / "out", name)
        assert origin.box[:2].tolist() == corner
        assert (origin.index, origin.count) == (index, len(expected))
    (tmp_path / "out/align_images" / list(expected)[-1]).unlink()
    assert run_preprocessing(config, two_faces()).written == len(expected)
    assert run_preprocessing(config, two_faces()).skipped == 1


def test_overwriting_does_all_again(tmp_path: Path) -> None:
    write_clip(tmp_path / "in", [10, 20])
    config = PreprocessConfig(tmp_path / "in", tmp_path / "out", "cpu")
    run_preprocessing(config, StubNetworks().networks)
    assert run_preprocessing(config, StubNetworks().networks).skipped == 2
    save_image(tmp_path / "in/001.png", draw_face(50))
    assert run_preprocessing(replace(config, overwrite=True), StubNetworks().networks).written == 2
    assert load_origin(tmp_path / "out", "001.png").box[0] == 50


def test_options_that_contradict_each_other(tmp_path: Path) -> None:
    write_clip(tmp_path / "in", [10])
    config = PreprocessConfig(tmp_path / "in", tmp_path / "out", "cpu")
    for changes, message in (({"video": True, "face": "all"}, "--no-video"), ({"smooth": True}, "--video")):
        with pytest.raises(UserError, match=message):
            run_preprocessing(replace(config, **changes), StubNetworks().networks)
