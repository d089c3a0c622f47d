"""records-*.npz: messages, LMDB databases and data-set items against the reference's."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from portrait4d.data.clip_dataset import ClipDataset, ClipItem
from portrait4d.data.image_io import save_image
from portrait4d.data.lmdb_store import LmdbReader, LmdbWriter
from portrait4d.data.pack_folders import PackConfig, pack_stills
from portrait4d.data.portrait_dataset import PortraitDataset
from portrait4d.data.portrait_folder import ALIGNED_IMAGES, FITTED_LABELS, MOTION_VECTORS, SEGMENTATIONS
from portrait4d.data.record_arrays import clip_arrays
from portrait4d.data.records import CLIP, RECORD_KINDS, STILL, RecordKind, decode_record, encode_record
from portrait4d.data.sampling import subset_indices
from portrait4d.geometry.head_rotation import rectify_head_rotations
from tests.golden.comparison import Context, Criterion, Result, compare, everywhere

Golden = np.lib.npyio.NpzFile
EXACT = everywhere(0)
CLOSE = everywhere(1e-5)
CONSTANTS = ("seg_render", "depth", "feature", "background", "triplane")
"""Zeros in the reference's items, which ours leave out."""


def picture_criterion(encoded: bytes, golden: np.ndarray) -> Criterion:
    """Accept differences of three grey levels in JPEG files, none in others; errors are relative to the largest."""
    return everywhere(3.01 / golden.max()) if encoded[:2] == b"\xff\xd8" else EXACT


def check(path: Path, context: Context) -> Iterator[Result]:
    """Compare everything of a records file but what ours has not: an empty name, a zero, a flip that does nothing."""
    golden = np.load(path)
    checked = set()
    for result in _results(path, golden):
        checked.add(result.array)
        yield result
    others = [name for name in golden.files if name not in checked and not name.startswith("ffhq/source_")]
    print(f"# {path.name}: not compared: {', '.join(others)}", flush=True)  # noqa: T201


def _results(path: Path, golden: Golden) -> Iterator[Result]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield from _messages(path, golden)
        yield from _still_database(path, golden, folder)
        yield from _still_items(path, golden, folder / "reference")
        for clip in sorted({key.split("/")[0] for key in golden.files if key.startswith("vfhq")}):
            yield from _clip_record(path, golden, clip)
            yield from _clip_items(path, golden, clip, folder / clip)


def _exact(path: Path, array: str, ours: object, golden: np.ndarray) -> Result:
    """Compare texts, bytes and integers."""
    same = np.array_equal(np.asarray(ours), golden)
    return Result(path.name, array, 0.0 if same else np.inf, 0.0 if same else np.inf, same)


def _messages(path: Path, golden: Golden) -> Iterator[Result]:
    for name, kind in RECORD_KINDS.items():
        where = f"messages/{name}"
        if f"{where}/bytes" not in golden:
            continue
        data = golden[f"{where}/bytes"].tobytes()
        fields = decode_record(kind, data)
        listing = [f"{number}:{field}" for number, field in enumerate(kind.fields, 1)]
        lengths = golden[f"{where}/byte_lengths"]
        yield _exact(path, f"{where}/fields", listing, golden[f"{where}/fields"])
        yield _exact(path, f"{where}/integers", [fields[f] for f in kind.integers], golden[f"{where}/integers"])
        yield _exact(path, f"{where}/byte_lengths", [len(fields[f]) for f in kind.blobs], lengths)
        values = dict(zip(kind.integers, golden[f"{where}/integers"].tolist(), strict=True))
        for q, (field, length) in enumerate(zip(kind.blobs, lengths.tolist(), strict=True), len(kind.integers)):
            values[field] = ((np.arange(length) + q) % 256).astype(np.uint8).tobytes()
        yield _exact(
            path,
            f"{where}/bytes",
            np.frombuffer(encode_record(kind, values), np.uint8),
            np.asarray(golden[f"{where}/bytes"]),
        )


def _still_database(path: Path, golden: Golden, folder: Path) -> Iterator[Result]:
    """Open the reference's file, and make the same database from the same source files."""
    reference = folder / "reference"
    reference.mkdir()
    (reference / "data.mdb").write_bytes(golden["ffhq/data_mdb"].tobytes())
    stored = dict(LmdbReader(reference).items())
    yield _exact(path, "ffhq/data_mdb", [key.decode() for key in stored], golden["ffhq/keys"])
    for key, value in stored.items():
        where = f"ffhq/value/{key.decode()}"
        yield _exact(path, f"ffhq/data_mdb {key.decode()}", np.frombuffer(value, np.uint8), golden[where])
    fields = decode_record(STILL, stored[b"00000000"])
    sizes = [fields["width"], fields["height"], fields["channels"]]
    yield _exact(path, "ffhq/decoded/size", sizes, golden["ffhq/decoded/size"])
    for name, kind in (("image", np.uint8), ("seg", np.uint8), ("labels", "<f4"), ("mots", "<f4")):
        yield _exact(path, f"ffhq/decoded/{name}", np.frombuffer(fields[name], kind), golden[f"ffhq/decoded/{name}"])
    report = pack_stills(_write_sources(golden, stored, folder))
    yield _exact(path, "ffhq/directory", report.target.name, golden["ffhq/directory"])
    made = dict(LmdbReader(report.target).items())
    yield _exact(path, "ffhq/keys", [key.decode() for key in made], golden["ffhq/keys"])
    for key, value in made.items():
        where = f"ffhq/value/{key.decode()}"
        yield _exact(path, where, np.frombuffer(value, np.uint8), golden[where])


def _write_sources(golden: Golden, stored: dict[bytes, bytes], folder: Path) -> PackConfig:
    """Write the raw folders from the records; of a portrait without motion vector nothing is known but its name."""
    raw = folder / "raw"
    names = golden["ffhq/source_names"].tolist()
    repetitions = golden["ffhq/source_repetitions"].tolist()
    has_motion = golden["ffhq/source_has_motion"].tolist()
    numbers = [int(Path(name).stem) for name in names]
    order = sorted(range(len(names)), key=lambda k: (numbers[k] // 1000, names[k]))
    side, number = _side(golden), 0
    for k in order:
        place, stem = raw / f"{numbers[k] // 1000:02d}000", Path(names[k]).stem
        for name in (ALIGNED_IMAGES, SEGMENTATIONS, FITTED_LABELS, MOTION_VECTORS):
            (place / name).mkdir(parents=True, exist_ok=True)
        if not has_motion[k]:
            import torch

            for name in (ALIGNED_IMAGES, SEGMENTATIONS):
                save_image(place / name / names[k], torch.zeros(3, side, side))
            np.save(place / FITTED_LABELS / f"{stem}.npy", np.zeros(437, np.float32))
            continue
        fields = decode_record(STILL, stored[f"{number:08d}".encode()])
        (place / ALIGNED_IMAGES / names[k]).write_bytes(fields["image"])
        (place / SEGMENTATIONS / names[k]).write_bytes(fields["seg"])
        np.save(place / FITTED_LABELS / f"{stem}.npy", np.frombuffer(fields["labels"], "<f4"))
        np.save(place / MOTION_VECTORS / f"{stem}.npy", np.frombuffer(fields["mots"], "<f4"))
        number += repetitions[k]
    table = {str(numbers[k] % 70000): repetitions[k] for k in order}
    (folder / "table.json").write_text(json.dumps(table))
    return PackConfig(raw, folder / "made", side, rebalance=str(folder / "table.json"))


def _side(golden: Golden) -> int:
    return int(golden["ffhq/dataset/image_shape"][1])


def _still_items(path: Path, golden: Golden, reference: Path) -> Iterator[Result]:
    dataset = PortraitDataset(reference)
    properties = {
        "length": len(dataset),
        "resolution": dataset.resolution,
        "image_shape": dataset.image_shape,
        "label_shape": dataset.label_shape,
        "has_labels": bool(any(dataset.label(i).any() for i in range(len(dataset)))),
    }
    for name, value in properties.items():
        yield _exact(path, f"ffhq/dataset/{name}", value, golden[f"ffhq/dataset/{name}"])
    names = ("image", "seg", "c", "shape", "expression", "pose", "eye")
    for index in range(len(dataset)):
        item, encoded = dataset[index], decode_record(STILL, golden[f"ffhq/value/{index:08d}"].tobytes())
        for name, ours in zip(names, item, strict=True):
            array = f"ffhq/item{index}/{name}"
            criterion = picture_criterion(bytes(encoded[name]), golden[array]) if name in encoded else EXACT
            yield compare(path, array, ours.numpy(), golden[array], criterion)
    params = dataset.head_params(0)[1]
    ours = np.concatenate([params.expression[0], params.pose[0, 3:]])
    yield compare(path, "ffhq/item0/expression_and_jaw", ours, golden["ffhq/item0/expression_and_jaw"], EXACT)
    chosen = subset_indices(len(dataset), 2, 3, copies=2)
    yield _exact(path, "ffhq/flip/raw_idx", chosen, golden["ffhq/flip/raw_idx"])
    yield _exact(path, "ffhq/flip/length", len(chosen), golden["ffhq/flip/length"])
    old = PortraitDataset(reference, rescale_old_camera=True)
    yield compare(path, "ffhq/rescaled_c", old[0].camera.numpy(), golden["ffhq/rescaled_c"], CLOSE)


def _clip_record(path: Path, golden: Golden, clip: str) -> Iterator[Result]:
    where = f"{clip}/value/00000000"
    data = golden[where].tobytes()
    fields = decode_record(CLIP, data)
    yield _exact(path, where, np.frombuffer(encode_record(CLIP, fields), np.uint8), golden[where])
    arrays = clip_arrays(fields)
    rotations = rectify_head_rotations(arrays.labels[:, 425:428])
    yield compare(path, f"{clip}/rectified_rotation", rotations, golden[f"{clip}/rectified_rotation"], CLOSE)
    if f"{clip}/decoded/size" not in golden:
        return
    sizes = [fields[name] for name in ("width", "height", "channels", "num")]
    lengths = [len(fields[name]) for name in CLIP.blobs]
    yield _exact(path, f"{clip}/decoded/size", sizes, golden[f"{clip}/decoded/size"])
    yield _exact(path, f"{clip}/decoded/lengths", lengths, golden[f"{clip}/decoded/lengths"])
    for name, ours in (
        ("labels", arrays.labels),
        ("mots", arrays.motions),
        ("images_sub", arrays.images[:, 8::16, 8::16]),
        ("segs_sub", arrays.masks[:, 8::16, 8::16, 0]),
    ):
        yield _exact(path, f"{clip}/decoded/{name}", ours, golden[f"{clip}/decoded/{name}"])


def _clip_items(path: Path, golden: Golden, clip: str, folder: Path) -> Iterator[Result]:
    _write_database(golden, clip, CLIP, folder)
    stored = dict(LmdbReader(folder).items())
    yield _exact(path, f"{clip}/keys", [key.decode() for key in stored], golden[f"{clip}/keys"])
    count = f"{clip}/value/num_samples"
    yield _exact(path, count, np.frombuffer(stored[b"num_samples"], np.uint8), golden[count])
    plain, flame = ClipDataset(folder), ClipDataset(folder, flame_motion=True)
    side = [len(plain), plain.resolution]
    yield _exact(path, f"{clip}/dataset/length_resolution", side, golden[f"{clip}/dataset/length_resolution"])
    yield _exact(path, f"{clip}/dataset/image_shape", plain.image_shape, golden[f"{clip}/dataset/image_shape"])
    yield _exact(path, f"{clip}/dataset/label_shape", plain.label_shape, golden[f"{clip}/dataset/label_shape"])
    for case in sorted({name.split("/")[1] for name in golden.files if name.startswith(f"{clip}/item_seed")}):
        dataset = flame if case.endswith("_flame") else plain
        generator = np.random.RandomState(int(case.removeprefix("item_seed").removesuffix("_flame")))
        frames = [generator.randint(dataset.frame_count(0)) for _ in range(2)]
        yield _exact(path, f"{clip}/{case}/frames", frames, golden[f"{clip}/{case}/frames"])
        item = dataset.load_frames(0, *frames)
        yield from _clip_item(path, golden, f"{clip}/{case}", item)


def _clip_item(path: Path, golden: Golden, where: str, item: ClipItem) -> Iterator[Result]:
    pictures = {"source": item.source_image, "driving": item.driving_image}
    pictures |= {"target": item.driving_image, "seg": item.driving_mask}
    numbers = {"c": item.camera, "shape": item.shape, "expression": item.expression, "pose": item.pose}
    numbers |= {"eye": item.eye_pose, "motion_source": item.source_motion, "motion_driving": item.driving_motion}
    for name, picture in pictures.items():
        if f"{where}/{name}" in golden:
            step = (
                slice(8, None, 16) if clip_is_thinned(picture.shape, golden[f"{where}/{name}"]) else slice(0, None, 2)
            )
            yield _exact(path, f"{where}/{name}_shape", picture.shape, golden[f"{where}/{name}_shape"])
            yield _exact(path, f"{where}/{name}", picture[:, step, step].numpy(), golden[f"{where}/{name}"])
    for name, values in numbers.items():
        if f"{where}/{name}" in golden:
            yield compare(path, f"{where}/{name}", values.numpy(), golden[f"{where}/{name}"], CLOSE)
    for name in CONSTANTS:
        if f"{where}/{name}" in golden:
            yield _exact(path, f"{where}/{name}", 0.0, golden[f"{where}/{name}"])


def clip_is_thinned(shape: tuple[int, ...], stored: np.ndarray) -> bool:
    """Say whether of a picture every 16th row and column is stored, not every second."""
    return stored.shape[1] == len(range(8, shape[1], 16)) != len(range(0, shape[1], 2))


def _write_database(golden: Golden, name: str, kind: RecordKind, folder: Path) -> None:
    prefix = f"{name}/value/0"
    values = [golden[key].tobytes() for key in sorted(golden.files) if key.startswith(prefix)]
    assert all(encode_record(kind, decode_record(kind, value)) == value for value in values)
    writer = LmdbWriter(folder.with_name(f"{folder.name}-unfinished"))
    writer.append(values, {})
    writer.finish(folder)
