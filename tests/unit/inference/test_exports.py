"""Coloured meshes: what they hold, and what another program reads from their files."""

import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from portrait4d.inference.exports import (
    ColouredSurface,
    colour_surface,
    drop_small_parts,
    head_surface,
    save_glb,
    save_ply,
)
from portrait4d.rendering.field import FieldSample
from portrait4d.rendering.marching_cubes import Surface, extract_surface
from tests.helpers.exported_heads import reenact_head

CENTRE, RADIUS = (0.1, 0.2, -0.05), 0.3


def egg(points: Tensor) -> Tensor:
    """Return raw densities that cross 0 on an ellipsoid, longest along y, shortest along z."""
    scaled = (points - points.new_tensor(CENTRE)) / points.new_tensor([1.0, 1.4, 0.6])
    return 1e4 * (RADIUS - scaled.norm(dim=-1))


def egg_surface() -> Surface:
    return extract_surface(egg, 48, 1.3, 0.0)


def shaded(surface: Surface) -> ColouredSurface:
    """Colour a surface by its place: red to the right, green upwards, blue in one tone."""
    colours = np.stack([surface.vertices[:, 0], surface.vertices[:, 1], 0 * surface.vertices[:, 2]], axis=1) + 0.5
    return ColouredSurface(*surface, colours.clip(0, 1).astype(np.float32))


def read_header(path: Path) -> dict:
    """Return the JSON chunk of a GLB."""
    data = path.read_bytes()
    magic, version, length, size, kind = struct.unpack("<4sIII4s", data[:20])
    assert (magic, version, length, kind) == (b"glTF", 2, len(data), b"JSON")
    return json.loads(data[20 : 20 + size])


def test_glb_is_in_metres_with_y_up_and_outward_triangles(tmp_path: Path) -> None:
    surface = shaded(egg_surface())
    save_glb(tmp_path / "egg.glb", surface)
    (mesh,) = trimesh.load(tmp_path / "egg.glb").geometry.values()
    np.testing.assert_allclose(mesh.vertices, surface.vertices / 3, atol=1e-7)
    assert np.array_equal(mesh.faces, surface.faces)
    half_size_metres = RADIUS * np.array([1.0, 1.4, 0.6]) / 3
    np.testing.assert_allclose(mesh.bounds.mean(axis=0), np.array(CENTRE) / 3, atol=2e-3)
    np.testing.assert_allclose(np.ptp(mesh.bounds, axis=0) / 2, half_size_metres, atol=2e-3)
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * half_size_metres.prod(), rel=0.02)  # negative if inside out
    header = read_header(tmp_path / "egg.glb")
    assert header["asset"]["extras"] == {"unit": "metre", "up": "+y", "front": "+z"}
    (primitive,) = header["meshes"][0]["primitives"]
    assert set(primitive["attributes"]) == {"POSITION", "NORMAL", "COLOR_0"}


def test_glb_colours_are_linear_and_unlit(tmp_path: Path) -> None:
    surface = shaded(egg_surface())
    save_glb(tmp_path / "egg.glb", surface)
    header = read_header(tmp_path / "egg.glb")
    (material,) = header["materials"]
    assert header["extensionsUsed"] == ["KHR_materials_unlit"] == list(material["extensions"])
    assert material["pbrMetallicRoughness"]["metallicFactor"] == 0
    accessor = header["accessors"][header["meshes"][0]["primitives"][0]["attributes"]["COLOR_0"]]
    assert (accessor["type"], accessor["componentType"], accessor["normalized"]) == ("VEC4", 5123, True)
    (mesh,) = trimesh.load(tmp_path / "egg.glb").geometry.values()
    stored = mesh.visual.vertex_attributes["color"] / 65535
    assert (stored[:, 3] == 1).all()
    linear = stored[:, :3]
    back = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(back, surface.colours, atol=1e-4)
    middle = np.abs(surface.colours[:, 2] - 0.5) < 1e-6
    np.testing.assert_allclose(linear[middle, 2], 0.21404, atol=1e-4)  # sRGB 0.5, from its standard


def test_ply_keeps_world_units_and_the_colours_of_pictures(tmp_path: Path) -> None:
    surface = shaded(egg_surface())
    save_ply(tmp_path / "egg.ply", surface)
    mesh = trimesh.load(tmp_path / "egg.ply", process=False)
    np.testing.assert_allclose(mesh.vertices, surface.vertices, atol=1e-6)
    np.testing.assert_allclose(mesh.visual.vertex_colors[:, :3] / 255, surface.colours, atol=0.51 / 255)


def test_colours_are_those_that_an_eye_sees() -> None:
    """Red skin, opaque within a hundredth, hides what is blue below it; the tint of the air around does not count."""
    surface = egg_surface()

    def field(points: Tensor) -> FieldSample:
        density = egg(points)
        tones = torch.tensor([[0.0, 1.0, 0.0, 9.0], [1.0, 0.0, 0.0, 9.0], [0.0, 0.0, 1.0, 9.0]])
        place = (density > -500).long() + (density > 2500).long()  # air, skin, below it
        return FieldSample(tones[place], density)

    coloured = colour_surface(surface, field)
    assert np.array_equal(coloured.faces, surface.faces) and coloured.colours.dtype == np.float32
    np.testing.assert_allclose(coloured.colours.mean(axis=0), [1, 0, 0], atol=0.02)


def test_colours_do_not_depend_on_the_parts_it_is_done_in(monkeypatch: pytest.MonkeyPatch) -> None:
    surface = egg_surface()

    def field(points: Tensor) -> FieldSample:
        return FieldSample(torch.sin(9 * points) / 2 + 0.5, egg(points))

    whole = colour_surface(surface, field)
    monkeypatch.setattr("portrait4d.inference.exports._VERTICES_PER_CHUNK", 700)
    np.testing.assert_allclose(colour_surface(surface, field).colours, whole.colours, atol=1e-6)


def test_small_parts_are_left_out() -> None:
    def three(points: Tensor) -> Tensor:
        balls = (((0.0, 0.0, 0.0), 0.3), ((0.0, 0.55, 0.0), 0.04), ((0.0, -0.5, 0.0), 0.14))
        return torch.stack([size - (points - points.new_tensor(at)).norm(dim=-1) for at, size in balls]).amax(0)

    surface = extract_surface(three, 64, 1.3, 0.0)
    assert surface.vertices[:, 1].max() > 0.55
    kept = drop_small_parts(surface)
    assert kept.vertices[:, 1].max() == pytest.approx(0.3, abs=0.01)
    assert kept.vertices[:, 1].min() == pytest.approx(-0.64, abs=0.01)  # a fifth of the largest part's triangles
    assert set(kept.faces.ravel()) == set(range(len(kept.vertices)))
    assert len(drop_small_parts(surface, 0.0).faces) == len(surface.faces)


def test_a_rendered_head_becomes_a_coloured_mesh(tiny_network: Path, tmp_path: Path) -> None:
    head = reenact_head(tiny_network, tmp_path)
    head.reenactor.config = replace(head.reenactor.config, shape_res=16)
    surface = head_surface(head.reenactor, head.source, head.render(), head.view)
    plain = head.reenactor.surface(head.source, head.render(), head.view)
    assert {tuple(vertex) for vertex in surface.vertices} <= {tuple(vertex) for vertex in plain.vertices}
    assert surface.colours.shape == surface.vertices.shape
    assert surface.colours.min() >= 0 and surface.colours.max() <= 1 and surface.colours.std() > 0
