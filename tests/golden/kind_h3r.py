"""h3r-*.npz: H3R landmarks on a real photo, with weights made from names."""

from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import numpy as np
import torch

from data_preprocess import landmarks_2d
from tests.golden.comparison import Context, Result, compare, everywhere
from tests.golden.preprocess_cases import bgr_bytes, load_filled, load_photo, pixels

EXACT = everywhere(0)
CLOSE = everywhere(1e-4)


@torch.no_grad()
def check(path: Path, context: Context) -> Iterator[Result]:
    """Compare the crop, the network's input, features, heat maps, and points."""
    golden = np.load(path)
    image = load_photo(context, golden)
    if image is None:
        yield Result(path.name, "photo", np.inf, np.inf, False, f"{golden['photo']} is not there: give --real")
        return
    yield compare(path, "image_checksum", crc32(bgr_bytes(image)), golden["image_checksum"], EXACT)
    boxes = torch.from_numpy(golden["box"])[None]
    enlarged = landmarks_2d.enlarge_boxes(boxes, landmarks_2d.DETECTION_ENLARGEMENT)
    corners = landmarks_2d.crop_corners(enlarged)[0]
    yield compare(path, "enlarged", enlarged[0].numpy(), golden["enlarged"], pixels(1e-3, golden["enlarged"]))
    yield compare(path, "corners", corners.numpy(), golden["corners"], EXACT)
    crop = landmarks_2d.cut_box(image, corners)
    yield compare(path, "crop", bgr_bytes(crop)[::4, ::4], golden["crop"], EXACT)
    yield compare(path, "crop_checksum", crc32(bgr_bytes(crop)), golden["crop_checksum"], EXACT)
    inputs = landmarks_2d.landmark_input(crop)
    yield compare(path, "input", inputs[:, ::8, ::8].numpy(), golden["input"], CLOSE)
    network = load_filled(landmarks_2d.load_landmark_network, context.find("manifest-h3r.json"))
    features, heatmaps = network.backbone(inputs[None])[0], network(inputs[None])
    chosen = heatmaps[0, golden["heatmap_points"]]
    yield compare(path, "features", features[::9, ::8, ::8].numpy(), golden["features"], CLOSE)
    yield compare(path, "heatmaps", chosen.numpy(), golden["heatmaps"], CLOSE)
    yield compare(path, "heatmaps_coarse", heatmaps[0, :, ::16, ::16].numpy(), golden["heatmaps_coarse"], CLOSE)
    ours = {
        "points256": landmarks_2d.decode_heatmaps(heatmaps)[0],
        "points": landmarks_2d.detect_landmarks98(network, image[None], boxes)[0],
    }
    for array, points in ours.items():
        yield compare(path, array, points.numpy(), golden[array], pixels(1e-2, golden[array]))
