"""What there is to prepare: pictures, folders of pictures and films under one path, and where their results go."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from portrait4d.data.portrait_folder import CROP_TRANSFORMS
from portrait4d.data.video_io import FILM_SUFFIXES, count_frames
from portrait4d.files.errors import InputFileError, UserError

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
WRITABLE_SUFFIXES = (".png", ".jpg", ".jpeg")
"""Of pictures that keep their name."""


@dataclass(frozen=True)
class Clip:
    """The pictures of one folder, or a film.

    Attributes:
        source: the folder, picture or film.
        output: the prepared folder to write.
        pictures: the folder's, sorted by name; None for a film.
        frames: how many pictures there are, None for a film that does not say.
        first: number of the first picture, where `pictures` are a part of the folder's.
    """

    source: Path
    output: Path
    pictures: tuple[Path, ...] | None
    frames: int | None
    first: int = 0

    @property
    def is_film(self) -> bool:
        """Whether the frames come out of one file."""
        return self.pictures is None

    def split(self, most: int) -> Iterator["Clip"]:
        """Yield a folder's pictures as clips of at most `most` with their numbers kept; a film as it is."""
        if self.pictures is None:
            yield self
            return
        for start in range(0, len(self.pictures), most):
            part = self.pictures[start : start + most]
            yield replace(self, pictures=part, frames=len(part), first=self.first + start)


@dataclass
class Media:
    """What was found.

    Attributes:
        clips: in the order of their paths.
        problems: files that cannot be used, and why.
        ignored: files that are neither pictures nor films by their names, and folders that are prepared ones.
    """

    clips: list[Clip] = field(default_factory=list)
    problems: list[UserError] = field(default_factory=list)
    ignored: list[Path] = field(default_factory=list)

    @property
    def frames(self) -> int | None:
        """How many pictures there are in all clips, None if a film does not say."""
        frames = [clip.frames for clip in self.clips]
        return None if None in frames else sum(frames)


def find_media(source: str | Path, save_dir: str | Path) -> Media:
    """Find pictures and films: in one file, or in a folder and those below it.

    The results of one file go to `save_dir` itself, and so do those of the pictures right in the folder; those of
    folders below go to the same relative paths, those of films among them to folders named after the films. Hidden
    files, `save_dir` and other prepared folders are passed over.

    Args:
        source: a picture, a film or a folder.
        save_dir: where results will go; need not exist.

    Raises:
        InputFileError: no such file or folder, or nothing in it; or `save_dir` is the folder itself.
    """
    source, save_dir = Path(source), Path(save_dir)
    media = Media()
    if source.is_file():
        _add_files(media, source, [source], save_dir, save_dir)
    elif not source.is_dir():
        raise InputFileError(source, "no such file or folder", "give --input_dir a folder, a picture or a film")
    elif source.resolve() == save_dir.resolve():
        raise InputFileError(source, "is --save_dir as well", "choose another --save_dir")
    else:
        for folder, files in _walk(source, {save_dir.resolve()}, media):
            _add_files(media, folder, files, save_dir / folder.relative_to(source), None)
    if not (media.clips or media.problems):
        known = ", ".join((*PICTURE_SUFFIXES, *FILM_SUFFIXES))
        raise InputFileError(source, f"no picture or film here ({known})", "give --input_dir a folder that has some")
    return _without_collisions(media)


def _walk(folder: Path, seen: set[Path], media: Media) -> Iterator[tuple[Path, list[Path]]]:
    """Yield folders and their files in order, but for folders that are reached again or that this program wrote."""
    if folder.resolve() in seen:
        return
    seen.add(folder.resolve())
    try:
        entries = sorted((path for path in folder.iterdir() if path.name[0] != "."), key=lambda path: path.name)
    except OSError as error:
        media.problems.append(InputFileError(folder, f"cannot be read ({error.strerror})"))
        return
    yield folder, [path for path in entries if not path.is_dir()]
    for path in entries:
        if (path / CROP_TRANSFORMS).is_dir():
            media.ignored.append(path)
        elif path.is_dir():
            yield from _walk(path, seen, media)


def _add_files(media: Media, source: Path, files: list[Path], output: Path, film_output: Path | None) -> None:
    """Add the pictures among `files` as one clip, and each film; without `film_output` by its name below `output`."""
    pictures: dict[str, Path] = {}
    for path in files:
        suffix = path.suffix.lower()
        if suffix in PICTURE_SUFFIXES:
            if path.stem in pictures:
                problem = f"has the same name as {pictures[path.stem].name} but for the suffix"
                media.problems.append(InputFileError(path, problem, "rename one"))
            else:
                pictures[path.stem] = path
        elif suffix not in FILM_SUFFIXES:
            media.ignored.append(path)
    if pictures:
        media.clips.append(Clip(source, output, tuple(pictures.values()), len(pictures)))
    for path in files:
        if path.suffix.lower() in FILM_SUFFIXES:
            try:
                media.clips.append(Clip(path, film_output or output / path.stem, None, count_frames(path)))
            except InputFileError as error:
                media.problems.append(error)


def _without_collisions(media: Media) -> Media:
    """Turn clips whose results would go to the folder of an earlier one into problems."""
    outputs: dict[Path, Path] = {}
    kept = []
    for clip in media.clips:
        other = outputs.setdefault(clip.output, clip.source)
        if other is clip.source:
            kept.append(clip)
        else:
            problem = f"its results would go to {clip.output}, as those of {other}"
            media.problems.append(InputFileError(clip.source, problem, "rename one"))
    return Media(kept, media.problems, media.ignored)
