"""Benchmarks on held-out persons of the open head world, whose true pictures are rendered once and then kept.

Everything is written down in a file, `SyntheticProtocol`; pictures of each person are one .npz file of the cache.
"""

import hashlib
import json
import zipfile
from collections.abc import Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from portrait4d.config.load import load_config, plain_config
from portrait4d.config.recon_metrics import SyntheticProtocol
from portrait4d.data.image_io import from_uint8, to_uint8
from portrait4d.files.atomic import atomic_path
from portrait4d.files.errors import InputFileError, UserError
from portrait4d.files.home import expand_home
from portrait4d.inference.recon_benchmarks import Case, Subject, TrueFrame
from portrait4d.synthetic_heads.appearance import Appearance, sample_appearance
from portrait4d.synthetic_heads.figure import Detail, build_figure
from portrait4d.synthetic_heads.head_template import VERSION
from portrait4d.synthetic_heads.motions import Motion, motion_vector, sample_clip_motions
from portrait4d.synthetic_heads.portrait_sets import SEED_STEP, worker_pool
from portrait4d.synthetic_heads.portraits import plan_orbit_shot
from portrait4d.synthetic_heads.scene import render_portrait

PROTOCOLS = Path(__file__).parents[1] / "examples" / "protocols"
SUM_TOLERANCE = 1e-3
ARRAYS = ("images", "masks", "labels", "motions", "landmarks")


@dataclass(frozen=True)
class FrameKey:
    """A true picture of a person: frame `frame` of clip `clip`, seen by a camera turned by `yaw_deg`."""

    clip: int
    frame: int
    yaw_deg: float = 0.0

    def __str__(self) -> str:
        return f"clip{self.clip:03d}-{self.frame:04d}" + (f"{self.yaw_deg:+g}deg" if self.yaw_deg else "")


def load_protocol(name: str | Path) -> SyntheticProtocol:
    """Load a bundled definition by its name, or one from a .json or .yaml file.

    Raises:
        InputFileError: no such protocol, or a file that is none.
        UserError: it was written for another version of the open head world.
    """
    path = PROTOCOLS / f"{name}.json"
    if not path.is_file():
        path = Path(name)
        if not path.is_file():
            known = ", ".join(sorted(file.stem for file in PROTOCOLS.glob("*.json")))
            raise InputFileError(path, "no such protocol", f"expected {known}, folder, gaga-vfhq or a file")
    protocol = load_config(SyntheticProtocol, path)
    check_world(protocol)
    return protocol


def check_world(protocol: SyntheticProtocol) -> None:
    """Make sure that the protocol's seeds still mean the persons and motions that were written down.

    Raises:
        UserError: they do not.
    """
    found = world_sums(protocol)
    written = protocol.shape_sums, protocol.motion_sums
    same = all(
        np.allclose(ours, theirs, rtol=0, atol=SUM_TOLERANCE) for ours, theirs in zip(found, written, strict=True)
    )
    if protocol.head_version != VERSION or not same:
        raise UserError(
            f"{protocol.name}: this version of the open head world draws other persons or motions than were written "
            "down; use the version of portrait4d that the protocol was made for, or another protocol"
        )


def world_sums(protocol: SyntheticProtocol) -> tuple[list[float], list[float]]:
    """Return what `shape_sums` and `motion_sums` are in this version of the open head world."""
    shapes = [float(person_of(protocol, k).shape.sum()) for k in range(protocol.identities)]
    clips = [*range(protocol.identities), protocol.common_clip]
    motions = [_clip(protocol, clip)[protocol.view_frame] for clip in clips]
    return shapes, [float(motion.neck_rad.sum() + motion_vector(motion).sum()) for motion in motions]


def person_of(protocol: SyntheticProtocol, number: int) -> Appearance:
    """Return the appearance of a person."""
    return sample_appearance(protocol.seed * SEED_STEP + number)


def keys_of(protocol: SyntheticProtocol, person: int) -> list[FrameKey]:
    """List the true pictures that a person needs, the source first."""
    following = (person + 1) % protocol.identities
    keys = [FrameKey(person, protocol.source_frame)]
    keys += [FrameKey(clip, frame) for clip in (person, following) for frame in protocol.frames]
    keys += [FrameKey(person, protocol.view_frame, yaw) for yaw in protocol.yaws_deg]
    return list(dict.fromkeys([*keys, FrameKey(protocol.common_clip, protocol.view_frame)]))


def render_person(protocol: SyntheticProtocol, person: int, size: int, path: Path) -> None:
    """Render all true pictures of a person, `size` pixels a side, and write them atomically."""
    figure = build_figure(person_of(protocol, person), Detail.for_size(size))
    rows: dict[str, list[np.ndarray]] = {name: [] for name in ARRAYS}
    for key in keys_of(protocol, person):
        motion = _clip(protocol, key.clip)[key.frame]
        shot = plan_orbit_shot(figure.person, motion, float(np.deg2rad(key.yaw_deg)))
        portrait = render_portrait(figure, shot.params, shot.render_camera, size, maps=False)
        rows["images"].append(to_uint8(portrait.image).numpy())
        rows["masks"].append(to_uint8(2 * portrait.mask - 1).numpy())
        rows["labels"].append(shot.label)
        rows["motions"].append(motion_vector(motion))
        rows["landmarks"].append(portrait.landmarks68.numpy())
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **{name: np.stack(values) for name, values in rows.items()})


class SyntheticBenchmark:
    """A synthetic protocol at one picture size.

    Args:
        protocol: of `load_protocol`.
        size: pixels a side.
        cache: folder of rendered truths, shared by all networks of that size.
        identities: measure the first so many persons; None: all.
    """

    is_synthetic = True

    def __init__(self, protocol: SyntheticProtocol, size: int, cache: Path, identities: int | None = None) -> None:
        self.protocol, self.size = protocol, size
        self.count = min(identities or protocol.identities, protocol.identities)
        digest = hashlib.sha256(json.dumps(plain_config(protocol), sort_keys=True).encode()).hexdigest()[:10]
        self.folder = expand_home(cache) / f"{protocol.name}-{size}px-{digest}"
        whole = self.count == protocol.identities
        self.name = protocol.name + ("" if whole else f" ({self.count} of {protocol.identities} identities)")

    def __len__(self) -> int:
        return self.count

    def prepare(self, workers: int = 1, verbose: bool = False) -> int:
        """Render the persons whose pictures are not in the cache, and return how many those were.

        Raises:
            UserError: a worker process was ended from outside.
        """
        # The driver of the last person's cross task is the next one.
        wanted = sorted({number % self.protocol.identities for number in range(self.count + 1)})
        missing = [number for number in wanted if not self._path(number).is_file()]
        progress = tqdm(missing, desc="true pictures", unit="person", disable=not verbose or not missing)
        jobs = [(self.protocol, number, self.size, self._path(number)) for number in missing]
        with progress:
            for _ in _run(jobs, workers):
                progress.update()
        return len(missing)

    def subjects(self) -> Iterator[Subject]:
        """Yield the persons.

        Raises:
            InputFileError: a file of the cache is damaged.
        """
        protocol = self.protocol
        own = self._load(0)
        for person in range(self.count):
            following = (person + 1) % protocol.identities
            other = self._load(following)
            cases = [
                *(self._case("self", own, own, FrameKey(person, frame)) for frame in protocol.frames),
                *(self._case("cross", other, own, FrameKey(following, frame)) for frame in protocol.frames),
                *(self._view(own, FrameKey(person, protocol.view_frame, yaw)) for yaw in protocol.yaws_deg),
            ]
            common = FrameKey(protocol.common_clip, protocol.view_frame)
            cases.append(self._case("common", other, own, common))
            yield Subject(f"person{person:03d}", own[FrameKey(person, protocol.source_frame)], cases)
            own = other

    def _case(
        self, task: str, driver: dict[FrameKey, TrueFrame], truth: dict[FrameKey, TrueFrame], key: FrameKey
    ) -> Case:
        return Case(task, driver[key], truth[key], key.frame)

    def _view(self, frames: dict[FrameKey, TrueFrame], key: FrameKey) -> Case:
        driver = frames[FrameKey(key.clip, key.frame)]
        return Case(f"novel-{abs(key.yaw_deg):g}deg", driver, frames[key], key.frame, key.yaw_deg)

    def _path(self, person: int) -> Path:
        return self.folder / f"person{person:03d}.npz"

    def _load(self, person: int) -> dict[FrameKey, TrueFrame]:
        path, keys = self._path(person), keys_of(self.protocol, person)
        try:
            with np.load(path) as file:
                arrays = {name: torch.from_numpy(file[name]) for name in ARRAYS}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputFileError(path, f"not readable ({error})", "remove it; it is rendered again") from error
        if any(len(array) != len(keys) for array in arrays.values()):
            raise InputFileError(path, f"expected {len(keys)} pictures", "remove it; it is rendered again")
        images, masks = from_uint8(arrays["images"]), arrays["masks"].float() / 255
        frames = {}
        for row, key in enumerate(keys):
            face = images[row], arrays["landmarks"][row]
            label, motion = arrays["labels"][row], arrays["motions"][row]
            frames[key] = TrueFrame(f"person{person:03d}-{key}", images[row], masks[row], label, motion, face)
        return frames


_clips: dict[tuple[int, int, float], list[Motion]] = {}


def _clip(protocol: SyntheticProtocol, clip: int) -> list[Motion]:
    """Return a clip's motions as far as they are needed; a longer clip would begin in the same way."""
    wanted = (protocol.seed, clip, protocol.fps)
    length = max(*protocol.frames, protocol.source_frame, protocol.view_frame) + 1
    if len(_clips.get(wanted, ())) < length:
        _clips[wanted] = sample_clip_motions(protocol.seed, clip, length, protocol.fps)
    return _clips[wanted]


def _run(jobs: list[tuple], workers: int) -> Iterable[None]:
    if workers == 1:
        return (_render(job) for job in jobs)
    return _run_in_pool(jobs, workers)


def _run_in_pool(jobs: list[tuple], workers: int) -> Iterator[None]:
    pool = worker_pool(workers)
    try:
        yield from pool.map(_render, jobs)
    except BrokenProcessPool as error:
        raise UserError("a worker process was ended from outside; run the same command again to go on") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _render(job: tuple[SyntheticProtocol, int, int, Path]) -> None:
    protocol, person, size, path = job
    render_person(protocol, person, size, path)
