"""The mapper on weights with closed forms, the label it makes, and files that are not it."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from data_preprocess.bfm_to_flame.bfm_files import list_coefficient_files, load_coefficients
from data_preprocess.bfm_to_flame.parameter_mapper import (
    MappedHead,
    ParameterMapper,
    head_pose,
    load_parameter_mapper,
    simplified_labels,
    unmapped_head,
)
from portrait4d.files.errors import AssetMissingError, InputFileError
from portrait4d.geometry.cameras import points_to_camera, split_camera
from portrait4d.geometry.head_params import split_label
from portrait4d.geometry.rotations import axis_angle_to_matrix
from tests.helpers.bfm_files import write_coefficients


@torch.no_grad()
def test_two_layers_with_a_leak() -> None:
    mapper = ParameterMapper()
    for parameter in mapper.parameters():
        parameter.zero_()
    mapper.hidden.weight[0, 79] = mapper.hidden.weight[1, 80] = 1  # last identity, first expression
    mapper.output.weight[299, 0] = mapper.output.weight[300, 1] = mapper.output.weight[402, 1] = 2
    identity, expression = torch.zeros(2, 80), torch.zeros(2, 64)
    identity[:, 79], expression[:, 0] = torch.tensor([3.0, -3.0]), torch.tensor([-5.0, 5.0])
    mapped = mapper(identity, expression)
    assert mapped.shape[:, 299].tolist() == pytest.approx([6, -0.06])
    assert mapped.expression[:, 0].tolist() == mapped.jaw_rad[:, 2].tolist() == pytest.approx([-0.1, 10])
    assert [tuple(part.shape) for part in mapped] == [(2, 300), (2, 100), (2, 3)]


def test_head_pose_of_an_upright_face_is_the_pitch_correction() -> None:
    assert np.degrees(head_pose(np.zeros((1, 3)))[0]) == pytest.approx([4.86, 0.17, 0.2], abs=0.02)
    yawed = head_pose(np.array([[0.0, 0.5, 0.0]]))[0]
    corrected = axis_angle_to_matrix(torch.from_numpy(yawed)) @ torch.tensor([0.0, 0, 1]).double()
    assert corrected[0] == pytest.approx(math.sin(0.5), abs=5e-3)  # positive yaw turns the face to +x


def test_label_holds_the_rotation_twice_and_a_camera_at_a_fixed_distance() -> None:
    mapped = MappedHead(torch.full((1, 300), 0.5), torch.full((1, 100), 0.25), torch.tensor([[0.1, 0.2, 0.3]]))
    angle = np.array([[0.1, -0.4, 0.05]])
    label = simplified_labels(mapped, angle)
    camera, params = split_label(label)
    cam2world = split_camera(camera).cam2world
    torch.testing.assert_close(cam2world[:, :3, :3].mT, axis_angle_to_matrix(params.pose[:, :3]))
    origin = points_to_camera(torch.zeros(1, 1, 3), cam2world)[0, 0]
    assert origin.tolist() == pytest.approx([0, -0.01, -4.2], abs=1e-6)
    assert params.pose[0, 3:].tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert not params.eye_pose.any() and (params.shape == 0.5).all() and (params.expression == 0.25).all()
    empty = simplified_labels(unmapped_head(1), angle)
    assert torch.equal(empty[:, :25], label[:, :25]) and not empty[:, 25:425].any()


def test_published_names_and_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = {"maps.0.weight": (512, 144), "maps.0.bias": (512,), "maps.2.weight": (403, 512), "maps.2.bias": (403,)}
    tensors = {name: torch.rand(shape) for name, shape in published.items()}
    path = tmp_path / "bfm2flame_mapper/model-iter200000.pth"
    path.parent.mkdir()
    torch.save(tensors, path)
    assert torch.equal(load_parameter_mapper(path).output.weight, tensors["maps.2.weight"])
    monkeypatch.setenv("PORTRAIT4D_ASSETS", str(tmp_path))
    with pytest.raises(InputFileError, match="sha256"):  # not the published file
        load_parameter_mapper()
    path.unlink()
    with pytest.raises(AssetMissingError, match="model-iter200000.pth"):
        load_parameter_mapper()


def test_coefficients(tmp_path: Path) -> None:
    path = tmp_path / "bfm_params/a.npy"
    content = write_coefficients(path, 0)
    face = load_coefficients(path)
    assert np.array_equal(face.identity, content["id"][0]) and np.array_equal(face.angle_rad, content["angle"][0])
    assert list_coefficient_files(tmp_path) == [path]
    for change, problem in (
        ({"exp": np.zeros((1, 63))}, "exp: expected 64 numbers"),
        ({"angle": np.full((1, 3), np.nan)}, "angle: expected finite"),
    ):
        write_coefficients(path, 0, **change)
        with pytest.raises(InputFileError, match=problem):
            load_coefficients(path)
    np.save(path, np.zeros(3))
    with pytest.raises(InputFileError, match="is not a .npy file that holds one Python object"):
        load_coefficients(path)
    with pytest.raises(InputFileError, match="bfm_params"):
        list_coefficient_files(tmp_path / "elsewhere")
