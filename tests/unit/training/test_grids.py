"""Picture grids: where tiles go, and how depths look."""

import torch

from portrait4d.training.grids import GridTiles, depth_picture


def test_tiles_of_several_grids_in_rows() -> None:
    tiles = GridTiles()
    colours = torch.tensor([-0.5, 0.0, 0.5])[:, None, None, None].expand(3, 3, 2, 2)
    tiles.add("", colours[:2])
    tiles.add("", colours[2:])
    tiles.add("_seg", torch.full((1, 1, 2, 2), 3.0))
    laid = tiles.lay_out(2)
    assert laid.keys() == {"", "_seg"} and laid[""].shape == (3, 4, 4)
    assert [laid[""][0, y, x].item() for y, x in ((0, 0), (0, 2), (2, 0))] == [-0.5, 0.0, 0.5]
    assert laid["_seg"].shape[0] == 3 and laid["_seg"].max() == 1, "grey, and cut off at 1"


def test_near_is_white_and_far_is_dark_and_nothing_is_black() -> None:
    depth = torch.tensor([[3.0, 4.0], [5.0, 1.0]])[None, None]
    transmittance = torch.tensor([[0.1, 0.4], [0.0, 0.9]])[None, None]
    picture = depth_picture(depth, transmittance)
    assert torch.allclose(picture, torch.tensor([[1.0, 0.2], [-0.6, -1.0]])[None, None])
    assert depth_picture(depth, torch.ones_like(depth)).unique().tolist() == [-1.0]
    assert depth_picture(torch.full_like(depth, 4.0), transmittance)[0, 0, 0, 0] == 1
