"""deep3d-*.npz: alignment, the coefficient network with weights made from names, and a stand-in face model."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from zlib import crc32

import numpy as np
import torch

from data_preprocess import bfm_model
from data_preprocess.bfm_coefficients import BfmCoefficients
from data_preprocess.bfm_model import BfmModel
from data_preprocess.bfm_regressor import align_face, load_bfm_regressor
from tests.golden import weights
from tests.golden.comparison import Context, Result, compare, everywhere, nearly_all_pixels
from tests.golden.kind_crop import EXACT, MATHS, five_points_up, rgb_bytes, transform_row
from tests.golden.preprocess_cases import bgr_bytes, load_filled, load_photo

FEATURES = everywhere(1e-4)
STDS = {"id": 0.8, "exp": 0.8, "tex": 0.8, "angle": 0.25, "gamma": 0.25, "trans": 0.15}


@torch.no_grad()
def check(path: Path, context: Context) -> Iterator[Result]:
    """Compare the face model and, given photos, the aligned crop and the coefficients."""
    golden = np.load(path)
    image = load_photo(context, golden)
    if image is None:
        yield Result(path.name, "photo", np.inf, np.inf, False, f"{golden['photo']} is not there: give --real")
        return
    yield compare(path, "image_checksum", crc32(bgr_bytes(image)), golden["image_checksum"], EXACT)
    aligned = align_face(image, torch.from_numpy(golden["landmarks98"]))
    network = load_filled(load_bfm_regressor, context.find("manifest-deep3d.json"))
    yield compare(path, "transform", transform_row(aligned.transform), golden["transform"], MATHS)
    yield compare(path, "aligned_points", five_points_up(aligned), golden["aligned_points"], MATHS)
    yield compare(path, "aligned", rgb_bytes(aligned.image)[::4, ::4], golden["aligned"], EXACT)
    yield compare(path, "aligned_checksum", crc32(rgb_bytes(aligned.image)), golden["aligned_checksum"], EXACT)
    mean = (aligned.image.double().mean().item() + 1) / 2
    yield compare(path, "input_mean", mean, golden["input_mean"], everywhere(1e-6))
    features = network.features(aligned.image[None]).flatten()
    yield compare(path, "backbone", features.numpy(), golden["backbone"], FEATURES)
    vector = network(aligned.image[None]).vector[0]
    yield compare(path, "coefficients", vector.numpy(), golden["coefficients"], FEATURES)
    yield from _check_model(path, golden, aligned.image[None])


def _check_model(path: Path, golden: Mapping[str, np.ndarray], crops: torch.Tensor) -> Iterator[Result]:
    model = BfmModel.from_arrays(golden)
    sizes = BfmCoefficients.from_vector(torch.zeros(1, 257)).file_entries(0)
    parts = [weights.tensor(f"deep3d-a/{key}", (1, sizes[key].shape[1]), 0, std) for key, std in STDS.items()]
    coefficients = BfmCoefficients.from_vector(torch.from_numpy(np.concatenate(parts, 1)))
    shape = model.shape(coefficients.identity, coefficients.expression)
    face = model(coefficients)
    picture = model.render(face)
    overlay = bfm_model.draw_over(crops, picture)[0]
    values = {
        "model_coefficients": coefficients.vector[0],
        "shape": shape[0],
        "rotation": bfm_model.rotation_from_angles(coefficients.angle_rad)[0],
        "vertices": face.vertices_camera[0],
        "texture": face.texture[0],
        "normals": model.normals(shape)[0],
        "colours": face.colours[0],
        "projected": bfm_model.project(face.vertices_camera)[0],
        "landmarks": face.landmarks_pixels[0],
    }
    for array, value in values.items():
        yield compare(path, array, value.numpy(), golden[array], everywhere(1e-5))
    depth, colours = picture.depth[0, :, ::2, ::2].numpy(), picture.colours[0, :, ::4, ::4].numpy()
    yield compare(path, "mask", picture.mask[0].numpy() > 0, golden["mask"][None], nearly_all_pixels())
    yield compare(path, "face_depth", depth, golden["face_depth"][None], nearly_all_pixels())
    yield compare(path, "face_image", colours, golden["face_image"], nearly_all_pixels())
    visual = rgb_bytes(overlay)[::4, ::4].transpose(2, 0, 1)  # ours is rounded, the reference's cut: one level
    yield compare(path, "visual", visual, golden["visual"].transpose(2, 0, 1), nearly_all_pixels(1 / 255))
