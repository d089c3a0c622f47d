"""What is found under a path, and where its results go."""

from pathlib import Path

import pytest
import torch

from data_preprocess.media import Clip, find_media
from portrait4d.data.image_io import save_video
from portrait4d.files.errors import InputFileError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def film(path: Path, frames: int = 3) -> None:
    save_video(path, [torch.zeros(3, 16, 16)] * frames, 25)


def test_a_tree_of_pictures_and_films(tmp_path: Path) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    touch(root / "b.JPG", root / "a.png", root / "notes.txt", root / ".hidden.png", root / "deep/er/x.webp")
    touch(root / "clip/2.png", root / "clip/10.png")
    film(root / "film.mp4")
    media = find_media(root, out)
    assert media.problems == [] and media.ignored == [root / "notes.txt"]
    assert media.clips == [
        Clip(root, out, (root / "a.png", root / "b.JPG"), 2),
        Clip(root / "film.mp4", out / "film", None, 3),
        Clip(root / "clip", out / "clip", (root / "clip/10.png", root / "clip/2.png"), 2),
        Clip(root / "deep/er", out / "deep/er", (root / "deep/er/x.webp",), 1),
    ]


def test_one_file_goes_to_the_folder_itself(tmp_path: Path) -> None:
    touch(tmp_path / "a.png")
    film(tmp_path / "b.mov.mp4")
    out = tmp_path / "out"
    assert find_media(tmp_path / "a.png", out).clips == [Clip(tmp_path / "a.png", out, (tmp_path / "a.png",), 1)]
    assert find_media(tmp_path / "b.mov.mp4", out).clips == [Clip(tmp_path / "b.mov.mp4", out, None, 3)]


def test_results_are_not_taken_for_input(tmp_path: Path) -> None:
    touch(tmp_path / "a.png", tmp_path / "out/align_images/a.png")
    touch(tmp_path / "old/align_images/a.png", tmp_path / "old/crop_transforms/a.npz")
    (tmp_path / "loop").symlink_to(tmp_path)
    media = find_media(tmp_path, tmp_path / "out")
    assert [clip.source for clip in media.clips] == [tmp_path]
    assert media.ignored == [tmp_path / "old"]


def test_names_that_collide(tmp_path: Path) -> None:
    root = tmp_path / "in"
    touch(root / "a.jpg", root / "a.png", root / "film/1.png")
    film(root / "film.mp4")
    media = find_media(root, tmp_path / "out")
    assert [clip.source for clip in media.clips] == [root, root / "film.mp4"]
    assert [str(problem) for problem in media.problems] == [
        f"{root / 'a.png'}: has the same name as a.jpg but for the suffix; rename one",
        f"{root / 'film'}: its results would go to {tmp_path / 'out/film'}, as those of {root / 'film.mp4'}; "
        "rename one",
    ]


def test_films_that_cannot_be_opened_are_problems(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4")
    media = find_media(tmp_path, tmp_path / "out")
    assert media.clips == [] and "a.mp4: not a readable film" in str(media.problems[0])


@pytest.mark.parametrize(
    ("source", "out", "problem"),
    [
        ("nothing", "out", "no such file or folder"),
        ("empty", "out", "no picture or film here"),
        ("notes.txt", "out", "no picture or film here"),
        ("empty", "empty", "is --save_dir as well"),
    ],
)
def test_nothing_to_do(tmp_path: Path, source: str, out: str, problem: str) -> None:
    (tmp_path / "empty").mkdir()
    touch(tmp_path / "notes.txt")
    with pytest.raises(InputFileError, match=problem):
        find_media(tmp_path / source, tmp_path / out)
