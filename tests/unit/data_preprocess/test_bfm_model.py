"""The Basel Face Model on an octahedron and a square: closed forms, pictures, and files."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat
from scipy.spatial.transform import Rotation

from data_preprocess.bfm_coefficients import BfmCoefficients
from data_preprocess.bfm_model import BfmModel, draw_over, light, load_bfm, project, rotation_from_angles
from portrait4d.files.errors import AssetMissingError, InputFileError
from portrait4d.models.pretrained import registry

CENTRE = np.array([-0.00322627, 0.04506068, 0.75983167])
OCTAHEDRON = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]]) * 0.7
OCTAHEDRON_FACES = np.array(
    [[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]]
)  # fmt: skip
SQUARE = np.array([[-0.5, -0.25, 0], [0.5, -0.25, 0], [0.5, 0.25, 0], [-0.5, 0.25, 0]])
SQUARE_FACES = np.array([[0, 0, 0], [0, 1, 2], [0, 2, 3]])  # the first triangle never shows


def arrays_of(vertices: np.ndarray, faces: np.ndarray) -> dict[str, np.ndarray]:
    """Return a face model in the layout of the published file: vertex 0 moves with the first coefficients."""
    count = len(vertices)
    around = [[*np.flatnonzero((faces == v).any(1))][:8] for v in range(count)]
    padded = [[*rows, *[len(faces)] * (8 - len(rows))] for rows in around]
    bases = {name: np.zeros((3 * count, size)) for name, size in (("idBase", 80), ("exBase", 64), ("texBase", 80))}
    bases["idBase"][0, 0] = bases["exBase"][1, 1] = bases["texBase"][2, 2] = 1
    return bases | {
        "meanshape": (vertices + CENTRE).reshape(1, -1),
        "meantex": np.tile([51.0, 102.0, 204.0], count)[None],
        "tri": faces + 1,
        "point_buf": np.array(padded) + 1,
        "keypoints": np.full((1, 68), 1) + np.arange(68) % count,
    }


def coefficients_of(**parts: dict[int, float]) -> BfmCoefficients:
    zero = BfmCoefficients.from_vector(torch.zeros(1, 257))
    for name, values in parts.items():
        for index, value in values.items():
            getattr(zero, name)[0, index] = value
    return zero


@pytest.fixture
def octahedron() -> BfmModel:
    return BfmModel.from_arrays(arrays_of(OCTAHEDRON, OCTAHEDRON_FACES))


@pytest.fixture
def square() -> BfmModel:
    return BfmModel.from_arrays(arrays_of(SQUARE, SQUARE_FACES))


# ---------------------------------------------------------------------------------------------------- model


def test_shape_and_texture_are_linear(octahedron: BfmModel) -> None:
    coefficients = coefficients_of(identity={0: 2.0}, expression={1: -3.0}, texture={2: 51.0})
    moved = octahedron.shape(coefficients.identity, coefficients.expression)[0].numpy() - OCTAHEDRON
    np.testing.assert_allclose(moved[0], [2, -3, 0], atol=1e-6)
    np.testing.assert_allclose(moved[1:], 0, atol=1e-6)
    texture = octahedron.texture(coefficients.texture)[0]
    np.testing.assert_allclose(texture[:2], [[0.2, 0.4, 1.0], [0.2, 0.4, 0.8]], atol=1e-6)


def test_normals_of_an_octahedron_point_outwards(octahedron: BfmModel) -> None:
    normals = octahedron.normals(octahedron.mean_shape[None])[0]
    np.testing.assert_allclose(normals, OCTAHEDRON / 0.7, atol=1e-6)


def test_rotation_is_about_x_then_y_then_z() -> None:
    angles = torch.tensor([[0.3, -0.5, 0.7], [0.0, 0.0, 0.0]])
    expected = Rotation.from_euler("xyz", angles.numpy()).as_matrix()  # extrinsic: R_z R_y R_x
    np.testing.assert_allclose(rotation_from_angles(angles).mT, expected, atol=1e-6)


def test_pose_and_projection(octahedron: BfmModel) -> None:
    face = octahedron(coefficients_of(angle_rad={2: math.pi / 2}, translation={0: 0.1, 1: 0.2, 2: 0.3}))
    assert face.vertices_camera[0, 0].tolist() == pytest.approx([0.1, 0.9, 9.7], abs=1e-5)  # x became y
    assert face.normals[0, 0].tolist() == pytest.approx([0, 1, 0], abs=1e-6)
    expected = [112 + 1015 * 0.1 / 9.7, 112 + 1015 * 0.9 / 9.7]
    assert face.landmarks_pixels[0, 0].tolist() == pytest.approx(expected, abs=1e-3)
    assert project(torch.tensor([0.0, 0.0, 10.0])).tolist() == [112, 112]


def test_light_without_coefficients_is_even(octahedron: BfmModel) -> None:
    face = octahedron(coefficients_of())
    torch.testing.assert_close(face.colours, face.texture * (0.8 * math.sqrt(math.pi) / 2))


@pytest.mark.parametrize(
    ("index", "normal", "harmonic"),
    [  # preprocess-networks.md §4.4
        (1, (0.0, 1.0, 0.0), -1.7724539),
        (2, (0.0, 0.0, -1.0), -1.7724539),
        (3, (1.0, 0.0, 0.0), -1.7724539),
        (4, (0.6, 0.8, 0.0), 2.4270324 * 0.48),
        (5, (0.0, 0.6, 0.8), -2.4270324 * 0.48),
        (6, (0.0, 0.0, 1.0), 2.4270324 / math.sqrt(3)),
        (7, (0.6, 0.0, 0.8), -2.4270324 * 0.48),
        (8, (0.0, 1.0, 0.0), -2.4270324 / 2),
    ],
)
def test_harmonics(index: int, normal: tuple[float, float, float], harmonic: float) -> None:
    texture, lighting = torch.ones(1, 1, 3), torch.zeros(1, 27)
    lighting[0, [0, 9, 18]] = -0.8
    lighting[0, 9 + index] = 0.5
    colours = light(texture, torch.tensor([[normal]]), lighting)
    assert colours[0, 0].tolist() == pytest.approx([0, 0.5 * harmonic, 0], abs=1e-6)


# ---------------------------------------------------------------------------------------------------- pictures


def test_picture_of_a_square(square: BfmModel) -> None:
    face = square(coefficients_of(translation={1: 0.3}))
    picture = square.render(face)
    mask = picture.mask[0, 0] > 0
    # 101.5 pixels a decimetre: x from 61.25 to 162.75, y up from 117.075 to 167.825
    assert mask.any(0).nonzero().flatten().tolist() == list(range(61, 163))
    assert mask.any(1).nonzero().flatten().tolist() == [row for row in range(224) if 117.075 < 223.5 - row < 167.825]
    assert picture.depth[0, 0][mask].numpy() == pytest.approx(10.0, abs=1e-4)
    assert (picture.depth[0, 0][~mask] == 0).all() and (picture.colours[0][:, ~mask] == 0).all()
    torch.testing.assert_close(picture.colours[0][:, 80, 100], face.colours[0, 0])
    assert face.landmarks_pixels[0, 0].tolist() == pytest.approx([61.25, 117.075], abs=1e-3)


def test_the_first_triangle_counts_as_background(square: BfmModel) -> None:
    swapped = BfmModel.from_arrays(arrays_of(SQUARE, SQUARE_FACES[[1, 2]]))
    whole, half = (model.render(model(coefficients_of())).mask.sum() for model in (square, swapped))
    assert 0.45 * whole < half < 0.55 * whole


def test_faces_are_drawn_over_their_crops(square: BfmModel) -> None:
    picture = square.render(square(coefficients_of()))
    crops = torch.full((1, 3, 224, 224), 0.25)
    drawn = draw_over(crops, picture)
    assert drawn.shape == (1, 3, 224, 448) and torch.equal(drawn[..., :224], crops)
    right, mask = drawn[0, :, :, 224:], picture.mask[0, 0] > 0
    assert (right[:, ~mask] == 0.25).all()
    torch.testing.assert_close(right[:, mask], (2 * picture.colours[0][:, mask] - 1).clamp(-1, 1))


# ---------------------------------------------------------------------------------------------------- files


def test_file_gives_the_model(octahedron: BfmModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "facerecon/bfm/BFM_model_front.mat"
    monkeypatch.setenv("PORTRAIT4D_ASSETS", str(tmp_path))
    monkeypatch.setattr(registry, "PACKAGE_MODELS", tmp_path / "package")
    with pytest.raises(AssetMissingError, match=r"BFM_model_front\.mat.*register for the Basel Face Model 2009"):
        load_bfm()
    path.parent.mkdir(parents=True)
    savemat(path, arrays_of(OCTAHEDRON, OCTAHEDRON_FACES) | {"skinmask": np.zeros((1, 6))})
    for loaded in (load_bfm(), load_bfm(path)):
        for name, tensor in octahedron.named_buffers():
            assert torch.equal(getattr(loaded, name), tensor)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"texBase": None}, "texBase: expected in the face model, got none"),
        ({"meantex": np.zeros((18, 1))}, r"meantex: expected shape \(1, 18\), got \(18, 1\)"),
        ({"keypoints": np.zeros((1, 68), int)}, "keypoints: expected indices from 1 to 6, got 0 to 0"),
        ({"point_buf": np.full((6, 8), 10)}, "point_buf: expected indices from 1 to 9, got 10 to 10"),
        ({"idBase": np.zeros((15, 80))}, "meanshape, idBase, exBase: expected one number of vertices"),
    ],
)
def test_other_files_are_refused(changes: dict[str, np.ndarray | None], problem: str, tmp_path: Path) -> None:
    arrays = arrays_of(OCTAHEDRON, OCTAHEDRON_FACES) | changes
    savemat(tmp_path / "m.mat", {name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(InputFileError, match=rf"m\.mat: {problem}"):
        load_bfm(tmp_path / "m.mat")


def test_files_that_are_no_models_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m.mat").write_bytes(b"\x80\x04cos\nsystem\n." * 20)
    with pytest.raises(InputFileError, match="m.mat: not a readable MATLAB file"):
        load_bfm(tmp_path / "m.mat")
    with pytest.raises(InputFileError, match="nowhere.mat"):
        load_bfm(tmp_path / "nowhere.mat")
