"""What all visitors share: networks, loaded when first needed, and bounded caches of what was computed or uploaded."""

import secrets
import shutil
from collections import OrderedDict
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

from portrait4d.config.experiments import ReenactConfig, SampleHeadsConfig
from portrait4d.config.web_app import WebAppConfig
from portrait4d.data.portrait_folder import PortraitFolder, PreparedPortrait
from portrait4d.files.errors import InputFileError, UserError
from portrait4d.inference.animate_job import NetworkChoice, OpenTrackers, choose_network
from portrait4d.inference.demo import EXAMPLES, write_untrained_network
from portrait4d.inference.reenact import Frame, Reenactor
from portrait4d.inference.sample_heads import HeadSampler
from portrait4d.inference.tracking import TrackerMaker
from portrait4d.models.outputs import SourceFeatures
from portrait4d.models.pretrained.bundled import bundled_path
from portrait4d.webapp.workspace import Workspace

BUNDLED_PORTRAITS = EXAMPLES / "synthetic" / "portraits" / "00000"
BUNDLED_CLIPS = EXAMPLES / "synthetic" / "driving"

ENCODED_SOURCES, UPLOADED_SOURCES, UPLOADED_CLIPS = 16, 32, 12
"""How many of each are kept; the one that was not used for longest goes first."""

Key = TypeVar("Key")
Value = TypeVar("Value")


class LruCache(Generic[Key, Value]):
    """The values that were used last, at most `bound` of them; safe to share between threads.

    Args:
        bound: at least 1.
        dropped: called with each value that goes.
    """

    def __init__(self, bound: int, dropped: Callable[[Value], None] = lambda _: None) -> None:
        if bound < 1:
            raise ValueError(f"bound: expected at least 1, got {bound}")
        self.bound = bound
        self._dropped = dropped
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._values)

    def find(self, key: Key) -> Value | None:
        """Return a value, which counts as a use, or None."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: Key, value: Value) -> None:
        """Add a value; the one not used for longest goes if there are too many."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            gone = [self._values.popitem(last=False)[1] for _ in range(len(self._values) - self.bound)]
        for value_gone in gone:
            self._dropped(value_gone)

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """Return a value, made first if need be; two threads that ask at once may both make it."""
        value = self.find(key)
        if value is None:
            value = make()
            self.put(key, value)
        return value


class Shelf(LruCache[str, Path]):
    """Folders of uploads under keys that nobody can guess; a folder that goes is deleted."""

    def __init__(self, bound: int) -> None:
        super().__init__(bound, lambda folder: shutil.rmtree(folder, ignore_errors=True))

    def add(self, folder: Path) -> str:
        """Keep a folder and return its key."""
        key = secrets.token_urlsafe(16)
        self.put(key, folder)
        return key


@dataclass(frozen=True)
class EncodedSource:
    """A source portrait, ready to be driven."""

    frame: Frame
    features: SourceFeatures


class AppState:
    """Networks, sources and clips of one running app. Nothing is loaded before it is asked for."""

    def __init__(
        self,
        config: WebAppConfig,
        workspace: Workspace,
        published_trackers: Callable[[], TrackerMaker] | None = None,
    ) -> None:
        self.config, self.workspace, self._published_trackers = config, workspace, published_trackers
        self.uploaded_sources, self.uploaded_clips = Shelf(UPLOADED_SOURCES), Shelf(UPLOADED_CLIPS)
        self._encoded: LruCache[str, EncodedSource] = LruCache(ENCODED_SOURCES)
        self._reenactor: Reenactor | None = None
        self._sampler: HeadSampler | None = None
        self._loading = Lock()

    @cached_property
    def network(self) -> NetworkChoice:
        """The network to show; for want of any, a small seeded one that nobody trained.

        Raises:
            InputFileError: the one named is missing or damaged.
        """
        try:
            return choose_network(self.config.network)
        except InputFileError:
            raise
        except UserError:
            path = self.workspace.root / "untrained-network.safetensors"
            write_untrained_network(path)
            return NetworkChoice(path, True, "a small seeded network that nobody trained")

    @property
    def is_untrained(self) -> bool:
        """Whether pictures come from the stand-in for a network that is missing."""
        return self.network.path.parent == self.workspace.root

    def check_files(self) -> None:
        """Make sure that the networks that were named are there; nothing is loaded.

        Raises:
            InputFileError: one is missing or damaged.
        """
        _ = self.network
        if self.config.genhead is not None and not self.config.genhead.is_file():
            raise InputFileError(self.config.genhead, "no such file", "give --genhead a .safetensors file or a .pkl")

    def reenactor(self) -> Reenactor:
        """Return the loaded reconstructor.

        Raises:
            UserError: its file is missing, damaged or of another kind, or the device is not there.
        """
        with self._loading:
            if self._reenactor is None:
                config = ReenactConfig(
                    network=self.network.path,
                    srcdir=BUNDLED_PORTRAITS,
                    tardir=BUNDLED_PORTRAITS,
                    outdir=self.workspace.root,
                    device=self.config.device,
                )
                loaded = Reenactor(config)
                loaded.options = replace(loaded.options, resolution=None)  # the network's own
                self._reenactor = loaded
            return self._reenactor

    def sampler(self, truncation: float, frames: int) -> HeadSampler:
        """Return the loaded GenHead, set to a truncation and a number of frames for each head.

        Raises:
            UserError: its file is missing, damaged or of another kind, or the device is not there.
        """
        path = self.config.genhead or bundled_path("genhead")
        if not path.is_file():
            raise UserError(
                f"There is no GenHead network ({path.name}). Start the app with --genhead FILE, a network that "
                "train_genhead.py or portrait4d-convert-network wrote, or a published .pkl."
            )
        with self._loading:
            if self._sampler is None:
                config = SampleHeadsConfig(path, self.workspace.root, seeds=(), device=self.config.device)
                self._sampler = HeadSampler(config)
        sampler = copy(self._sampler)
        sampler.config = replace(sampler.config, trunc=truncation, frames=frames)
        return sampler

    def trackers(self) -> TrackerMaker:
        """Return what makes trackers of uploads: of the open head world for its networks, else the published ones.

        Raises:
            UserError: the network cannot be loaded, or its trackers are missing.
        """
        if self.network.is_open_world:
            return OpenTrackers(self.reenactor())
        if self._published_trackers is None:
            raise UserError("This network needs the published trackers. Choose one of the bundled persons and clips.")
        return self._published_trackers()

    def portrait(self, key: str) -> PreparedPortrait:
        """Return a source: a bundled one by its name, an uploaded one by its key.

        Raises:
            UserError: there is none, or no longer.
        """
        bundled = bundled_portraits()
        if key in bundled:
            return bundled[key]
        folder = self.uploaded_sources.find(key)
        if folder is None:
            raise UserError("This photo is no longer in memory. Please upload it again.")
        return PortraitFolder(folder).items()[0]

    def encoded(self, key: str) -> EncodedSource:
        """Return a source ready to be driven, encoded first if need be.

        Raises:
            UserError: there is no such source, or the network cannot be loaded.
        """
        portrait, reenactor = self.portrait(key), self.reenactor()

        def encode() -> EncodedSource:
            frame = reenactor.load_frame(portrait)
            return EncodedSource(frame, reenactor.encode_source(frame))

        return self._encoded.get(key, encode)


def bundled_portraits() -> dict[str, PreparedPortrait]:
    """Return the bundled sources by name, in order."""
    return {portrait.stem: portrait for portrait in PortraitFolder(BUNDLED_PORTRAITS).items()}


def bundled_clips() -> dict[str, Path]:
    """Return the prepared folders of the bundled driving clips by name, in order."""
    return {path.name: path for path in sorted(BUNDLED_CLIPS.glob("clip-*"))}
