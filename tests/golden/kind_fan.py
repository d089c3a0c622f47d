"""fan-*.npz: crop, FAN-4 with weights made from names, decoding of hand-made heat-maps, and depth inputs."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from zlib import crc32

import numpy as np
import torch

from data_preprocess import landmarks_3d
from data_preprocess.fan_weights import load_fan
from data_preprocess.landmarks_3d import FanFrame
from tests.golden import weights
from tests.golden.comparison import Context, Result, compare, everywhere
from tests.golden.preprocess_cases import bgr_bytes, load_filled, load_photo, pixels

EXACT, FEATURES = everywhere(0), everywhere(1e-4)


@torch.no_grad()
def check(path: Path, context: Context) -> Iterator[Result]:
    """Compare the frame, the decoding without a network, crop, heat-maps of all stacks and points."""
    golden = np.load(path)
    box = torch.from_numpy(golden["box"])
    frame = landmarks_3d.fan_frame(box)
    low, high = frame.corners
    yield compare(path, "centre", np.array(frame.centre), golden["centre"], everywhere(1e-9))
    yield compare(path, "scale", frame.scale, golden["scale"], everywhere(1e-7))
    yield compare(path, "corner_low", low, golden["corner_low"], EXACT)
    yield compare(path, "corner_high", high, golden["corner_high"], EXACT)
    yield from _check_decoding(path, golden, frame)
    image = load_photo(context, golden)
    if image is None:
        yield Result(path.name, "photo", np.inf, np.inf, False, f"{golden['photo']} is not there: give --real")
        return
    yield compare(path, "image_checksum", crc32(bgr_bytes(image)), golden["image_checksum"], EXACT)
    crop = landmarks_3d.cut_fan_crop(image, frame)
    yield compare(path, "crop", bgr_bytes(crop)[::4, ::4], golden["crop"], EXACT)
    yield compare(path, "crop_checksum", crc32(bgr_bytes(crop)), golden["crop_checksum"], EXACT)
    yield compare(path, "input", (crop[:, ::8, ::8].numpy() + 1) / 2, golden["input"], everywhere(1e-6))
    fan = load_filled(load_fan, context.find("manifest-fan.json"))
    heatmaps = torch.cat(fan.all_heatmaps(crop[None]))
    chosen = golden["heatmap_points"]
    yield compare(path, "stack_heatmaps", heatmaps[:, ::8, ::4, ::4].numpy(), golden["stack_heatmaps"], FEATURES)
    yield compare(path, "heatmaps", heatmaps[-1, chosen].numpy(), golden["heatmaps"], FEATURES)
    expected = golden["network_points"]
    points = landmarks_3d.detect_landmarks68(fan, image[None], box[None]).points[0].numpy()
    moved = int((np.abs(points - expected).max(-1) > 1e-3).sum())
    yield Result(path.name, "network_points", moved, moved, moved <= 1, "points that are elsewhere")


def _check_decoding(path: Path, golden: Mapping[str, np.ndarray], frame: FanFrame) -> Iterator[Result]:
    maps = weights.tensor("fan-a/heatmaps", (68, 64, 64), 0, 0.05)
    maps[66:] = 0
    x, y = golden["hand_peaks"].T
    maps[np.arange(68), y, x] = 2
    points64, scores = landmarks_3d.decode_heatmaps(torch.from_numpy(maps)[None])
    placed = landmarks_3d.place_points(points64[0], frame)
    depth = torch.from_numpy(golden["depth_output"] * (frame.side / 256))
    depth_maps = landmarks_3d.draw_depth_maps(points64[0]).numpy()
    sums = golden["gaussian_sums"]
    yield compare(path, "hand_checksum", crc32(maps), golden["hand_checksum"], EXACT)
    yield compare(path, "hand_points64", points64[0].numpy(), golden["hand_points64"], EXACT)
    yield compare(path, "hand_points", placed.numpy(), golden["hand_points"], EXACT)
    yield compare(path, "hand_scores", scores[0].numpy(), golden["hand_scores"], EXACT)
    with_depth = torch.cat([placed, depth[:, None]], 1).numpy()
    expected = golden["hand_points_with_depth"]
    yield compare(path, "hand_points_with_depth", with_depth, expected, pixels(1e-3, expected))
    yield compare(path, "gaussians", depth_maps[golden["gaussian_points"]], golden["gaussians"], everywhere(1e-6))
    yield compare(path, "gaussian_sums", depth_maps.astype(np.float64).sum((1, 2)), sums, everywhere(1e-6))
