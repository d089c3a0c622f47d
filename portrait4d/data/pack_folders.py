"""Pack raw folders into databases or shards: resumable, checked, reported. The work of `generate_lmdb/`.

Records are written to `<output>/.unfinished-<name>`; only the complete folder gets its final name,
`FFHQ_<resolution>_<count>` or `VFHQ_sub<frames>_<resolution>_<count>` (shards: `-shards` behind it). Beside the data
lies `packing.json`: what was packed, left out and bad. The reference's loaders take no notice of it.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from portrait4d.data.image_io import decode_pixels
from portrait4d.data.lmdb_store import COMMIT_ENTRIES, LmdbWriter
from portrait4d.data.pack_sources import (
    ClipSource,
    Packed,
    ReadRules,
    StillSource,
    plan_clips,
    plan_stills,
    read_clip,
    read_still,
)
from portrait4d.data.portrait_folder import PortraitFolder
from portrait4d.data.records import CLIP, STILL, RecordKind
from portrait4d.data.shards import SHARD_BYTES, ShardWriter
from portrait4d.data.unfinished_folder import RecordWriter
from portrait4d.files.atomic import write_text
from portrait4d.files.errors import UserError
from portrait4d.files.read_ahead import map_in_order

REPORT_FILE = "packing.json"
_LABEL_BYTES = 4 * (437 + 548)
_SPACE_MARGIN = 1.05
_SHOWN = 20

Source = StillSource | ClipSource


@dataclass(frozen=True)
class PackConfig:
    """What to pack, where to, and how.

    Attributes:
        data_dir, output_dir: raw folders in, finished folder out.
        resolution: side in pixels of all pictures.
        max_len: stop after so many records (stills, repetitions counted) or clips; -1: all.
        workers: threads that read and check.
        resume: go on with an unfinished run of the same sources.
        validate: decode every picture and check every label before packing.
        frames: of a clip.
        allow_short: pack clips that have fewer frames.
        rebalance: "none", "auto", or a table's path; stills only.
        container: LMDB database or tar shards.
        commit_every: records per commit of a database; what a kill can cost.
        shard_mb: size of a shard in MiB.
    """

    data_dir: Path
    output_dir: Path
    resolution: int = 512
    max_len: int = -1
    workers: int = 2
    resume: bool = False
    validate: bool = False
    frames: int = 50
    allow_short: bool = False
    rebalance: str = "none"
    container: Literal["lmdb", "shards"] = "lmdb"
    commit_every: int = COMMIT_ENTRIES
    shard_mb: int = SHARD_BYTES >> 20

    @property
    def suffix(self) -> str:
        """Last part of the finished folder's name."""
        return "" if self.container == "lmdb" else "-shards"

    @property
    def rules(self) -> ReadRules:
        """How sources are read."""
        return ReadRules(self.resolution, self.validate, self.frames, self.allow_short)


@dataclass
class PackReport:
    """What was packed, and (name, reason) of what the rules left out and of what was bad."""

    target: Path
    entries: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)

    def summary(self) -> str:
        """Return a few lines for the terminal."""
        lines = [f"{self.entries} records in {self.target}"]
        for title, items in (("left out", self.left_out), ("BAD", self.bad)):
            if items:
                lines.append(f"{len(items)} {title}:")
                lines += [f"  {name}: {reason}" for name, reason in items[:_SHOWN]]
                lines += [f"  ... and {len(items) - _SHOWN} more, see {REPORT_FILE}"] * (len(items) > _SHOWN)
        return "\n".join(lines)


@dataclass(frozen=True)
class _Job:
    """Sources to read in order, the first part of the final name, an estimate of the size, what is bad already."""

    prefix: str
    kind: RecordKind
    sources: Sequence[Source]
    read: Callable[[Source, ReadRules], Packed]
    bytes_needed: int
    bad: list[tuple[str, str]] = field(default_factory=list)


def pack_stills(config: PackConfig) -> PackReport:
    """Pack still portraits (FFHQ) in the reference's order, each repeated as the rebalancing says.

    Raises:
        UserError: nothing to pack, no room, a place that cannot be written, or an unfinished run in the way.
    """
    sources = _cut_repetitions(plan_stills(config.data_dir, config.rebalance), config.max_len)
    sizes = (source.picture_bytes + source.mask_bytes + _LABEL_BYTES for source in sources)
    needed = sum(source.repetitions * size for source, size in zip(sources, sizes, strict=True))
    return _pack(config, _Job(f"FFHQ_{config.resolution}", STILL, sources, read_still, needed))


def pack_clips(config: PackConfig) -> PackReport:
    """Pack video clips (VFHQ), one record each.

    Raises:
        UserError: as `pack_stills`.
    """
    sources, bad = plan_clips(config.data_dir)
    sources = sources[: config.max_len] if config.max_len >= 0 else sources
    pixels = config.frames * config.resolution**2 * (3 + _mask_channels(sources))
    needed = len(sources) * (pixels + config.frames * _LABEL_BYTES)
    prefix = f"VFHQ_sub{config.frames}_{config.resolution}"
    return _pack(config, _Job(prefix, CLIP, sources, read_clip, needed, bad))


def _pack(config: PackConfig, job: _Job) -> PackReport:
    fingerprint = _fingerprint(config, job)
    folder = config.output_dir / f".unfinished-{job.prefix}{config.suffix}"
    if not folder.exists():
        finished = _find_finished(config, job, fingerprint) if config.resume else None
        if finished:
            return finished
        _require_space(config.output_dir, job.bytes_needed)
    elif not config.resume:
        raise UserError(f"{folder}: an unfinished run is in the way; go on with --resume, or remove the folder")
    with closing(_open_writer(config, job, folder)) as writer:
        if writer.is_complete:  # killed just before it was given its name, or the name was taken
            notes = _read_notes(folder / REPORT_FILE)
            _require_same(folder, notes, fingerprint)
        else:
            notes = _write_records(config, job, writer, fingerprint)
        report = _make_report(config, job, notes)
        if report.entries:
            writer.finish(report.target)
    if not report.entries:
        shutil.rmtree(folder)
        raise UserError(f"{config.data_dir}: nothing could be packed\n{report.summary()}")
    return report


def _write_records(config: PackConfig, job: _Job, writer: RecordWriter, fingerprint: str) -> dict:
    """Append what is missing and write the report beside it; return the report's values."""
    state = writer.state or {"fingerprint": fingerprint, "next": 0, "left_out": [], "bad": job.bad}
    _require_same(writer.folder, state, fingerprint)
    _require_space(config.output_dir, job.bytes_needed * (1 - state["next"] / max(len(job.sources), 1)))
    state = _append_all(config, job, writer, state)
    notes = {key: state[key] for key in ("fingerprint", "left_out", "bad")} | {"entries": writer.entries}
    write_text(writer.folder / REPORT_FILE, json.dumps(notes, indent=1))
    return notes


def _require_same(folder: Path, notes: dict, fingerprint: str) -> None:
    if notes.get("fingerprint") != fingerprint:
        raise UserError(f"{folder}: was made from other sources or options; use those again, or remove the folder")


def _make_report(config: PackConfig, job: _Job, notes: dict) -> PackReport:
    target = config.output_dir / f"{job.prefix}_{notes['entries']}{config.suffix}"
    return PackReport(target, notes["entries"], notes["left_out"], notes["bad"])


def _append_all(config: PackConfig, job: _Job, writer: RecordWriter, state: dict) -> dict:
    sources = job.sources[state["next"] :]
    progress = tqdm(total=len(job.sources), initial=state["next"], unit="item", desc=job.prefix)
    with progress:
        for packed in map_in_order(lambda source: job.read(source, config.rules), sources, config.workers):
            left_out = state["left_out"] + packed.left_out if packed.left_out else state["left_out"]
            bad = state["bad"] + packed.bad if packed.bad else state["bad"]
            state = state | {"next": state["next"] + 1, "left_out": left_out, "bad": bad}
            writer.append(packed.values, state)
            progress.update()
    return state


def _open_writer(config: PackConfig, job: _Job, folder: Path) -> RecordWriter:
    if config.container == "lmdb":
        return LmdbWriter(folder, commit_entries=config.commit_every)
    return ShardWriter(folder, job.kind, config.shard_mb << 20)


def _fingerprint(config: PackConfig, job: _Job) -> str:
    """Hash what the records depend on; of the pictures their sizes, which tell data that was made anew."""
    sources = [(source.name, source.picture_bytes, getattr(source, "repetitions", 1)) for source in job.sources]
    options = [str(config.data_dir.resolve()), job.prefix, config.container, config.validate, config.allow_short]
    return hashlib.sha256(json.dumps([options, sources]).encode()).hexdigest()


def _find_finished(config: PackConfig, job: _Job, fingerprint: str) -> PackReport | None:
    """Find the result of the same job, under the name that it was given: what was moved away is not meant."""
    for path in config.output_dir.glob(f"{job.prefix}_*{config.suffix}/{REPORT_FILE}"):
        notes = _read_notes(path)
        if notes.get("fingerprint") == fingerprint:
            report = _make_report(config, job, notes)
            if report.target == path.parent:
                return report
    return None


def _read_notes(path: Path) -> dict:
    """Return a report's values; none of a file that is missing, damaged or no report."""
    try:
        notes = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    wanted = {"fingerprint", "left_out", "bad", "entries"}
    return notes if isinstance(notes, dict) and wanted <= notes.keys() else {}


def _cut_repetitions(sources: list[StillSource], max_len: int) -> list[StillSource]:
    """Keep the first `max_len` records, repetitions counted."""
    if max_len < 0:
        return sources
    kept, left = [], max_len
    for source in sources:
        if left <= 0:
            break
        kept.append(replace(source, repetitions=min(source.repetitions, left)))
        left -= source.repetitions
    return kept


def _mask_channels(sources: Sequence[ClipSource]) -> int:
    """Channels of the first mask that can be read."""
    for source in sources[:1]:
        try:
            path = PortraitFolder(source.folder).items()[0].segmentation_path
            return 1 if decode_pixels(path.read_bytes(), path.name).ndim == 2 else 3
        except (UserError, OSError, ValueError):
            break  # reading the clip reports it
    return 3


def _require_space(output_dir: Path, bytes_needed: float) -> None:
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(output_dir).free
    except OSError as error:
        raise UserError(f"{output_dir}: cannot be written ({error.strerror}); choose another --output_dir") from error
    if free < bytes_needed * _SPACE_MARGIN:
        raise UserError(
            f"{output_dir}: {free / 2**30:.1f} GiB are free, about {bytes_needed / 2**30:.1f} GiB are needed; "
            "make room, choose another --output_dir, or pack less (--max_len)"
        )
