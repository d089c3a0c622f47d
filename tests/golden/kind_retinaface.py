"""retinaface-*.npz: RetinaFace on a real photo with weights made from names, and the decoding of hand-made outputs."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from zlib import crc32

import numpy as np
import torch

from data_preprocess import face_boxes
from data_preprocess.face_boxes import DetectionSettings, FaceBoxes
from data_preprocess.retinaface_network import HeadOutputs, RetinaFace, load_retinaface
from tests.golden.comparison import Context, Result, compare, everywhere
from tests.golden.preprocess_cases import bgr_bytes, load_filled, load_photo, pixels

UNMATCHED = 2
"""Detections near the thresholds that the reference's machine and ours may see differently."""


@torch.no_grad()
def check(path: Path, context: Context) -> Iterator[Result]:
    """Compare input, features, head outputs, priors, detections, and the decoding without a network."""
    golden = np.load(path)
    yield from check_decoding(path, golden)
    image = load_photo(context, golden)
    if image is None:
        yield Result(path.name, "photo", np.inf, np.inf, False, f"{golden['photo']} is not there: give --real")
        return
    yield compare(path, "image_checksum", crc32(bgr_bytes(image)), golden["image_checksum"], everywhere(0))
    network = load_filled(load_retinaface, context.find("manifest-retinaface.json"))
    inputs, _ = face_boxes.detection_inputs(image[None], int(golden["input_size"][0]))
    for array, value in outputs_of(network, inputs, golden["rows"]).items():
        expected = golden[array][:, 1] if array == "scores" else golden[array]
        yield compare(path, array, value, expected, everywhere(1e-4))
    yield from check_priors(path, golden)
    (faces,) = face_boxes.detect_faces(network, image[None])
    yield compare_as_sets(path, "detections", faces, golden["detections"])


def outputs_of(network: RetinaFace, inputs: torch.Tensor, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return the network's input, features and head outputs as the golden file samples them."""
    stages = network.body(inputs)
    levels = network.pyramid(stages)
    outputs = network(inputs)
    values = {
        "input": inputs[0, :, ::16, ::16],
        "body2": stages.stride8[0, ::32, ::4, ::4],
        "body3": stages.stride16[0, ::64, ::2, ::2],
        "body4": stages.stride32[0, ::128],
        "fpn1": levels[0][0, ::16, ::4, ::4],
        "fpn3": levels[2][0, ::16],
        "loc": outputs.locations[0, rows],
        "scores": outputs.scores[0, rows],
        "landmarks": outputs.landmarks[0, rows],
    }
    return {name: value.numpy() for name, value in values.items()}


def check_priors(path: Path, golden: Mapping[str, np.ndarray]) -> Iterator[Result]:
    """Compare the priors of the photo, the checksum to the bit."""
    priors = face_boxes.prior_boxes(*golden["input_size"].tolist()).numpy()
    values = {
        "prior_count": len(priors),
        "priors_first": priors[:8],
        "priors_last": priors[-8:],
        "priors_sum": priors.astype(np.float64).sum(0),
        "priors_checksum": crc32(priors),
    }
    for array, value in values.items():
        yield compare(path, array, value, golden[array], everywhere(0))


def check_decoding(path: Path, golden: Mapping[str, np.ndarray]) -> Iterator[Result]:
    """Compare priors, boxes, points and selection for head outputs that the file holds."""
    size = tuple(golden["decode_input_size"].tolist())
    priors = face_boxes.prior_boxes(*size)
    loc, scores, landmarks = (torch.from_numpy(golden[f"decode_{name}"]) for name in ("loc", "scores", "landmarks"))
    outputs = HeadOutputs(loc, scores[:, 1], landmarks)
    faces = face_boxes.decode_faces(outputs, priors, size, float(golden["decode_ratio"]))
    settings = DetectionSettings()
    above = int((faces.scores > settings.score_threshold).sum())
    yield compare(path, "decode_priors", priors.numpy(), golden["decode_priors"], everywhere(0))
    yield compare(
        path, "decode_boxes", faces.boxes.numpy(), golden["decode_boxes"], pixels(1e-3, golden["decode_boxes"])
    )
    points = golden["decode_points"]
    yield compare(path, "decode_points", faces.points.numpy(), points, pixels(1e-3, points))
    yield compare(path, "decode_above", above, golden["decode_above"], everywhere(0))
    selected = face_boxes.select_faces(faces, settings)
    yield compare_as_sets(path, "decode_detections", selected, golden["decode_detections"], unmatched=0)


def compare_as_sets(path: Path, array: str, faces: FaceBoxes, golden: np.ndarray, unmatched: int = UNMATCHED) -> Result:
    """Match faces with golden rows (K, 5) = box, score within 0.05 pixels and 1e-4; the error is the matched ones'."""
    ours = np.concatenate([faces.boxes.numpy(), faces.scores.numpy()[:, None]], axis=1)
    errors = np.abs(ours[:, None] - golden[None])
    matches = (errors[..., :4].max(-1) <= 0.05) & (errors[..., 4] <= 1e-4)
    alone = int((~matches.any(1)).sum() + (~matches.any(0)).sum())
    largest = errors[matches].max(initial=0)
    remark = f"{len(ours)} faces, {len(golden)} golden, {alone} unmatched"
    return Result(path.name, array, largest, largest / np.abs(golden).max(), alone <= unmatched, remark)
