"""Uploads are judged by content; what is refused is gone, and the reason can be read."""

import struct
import zipfile
from pathlib import Path

import pytest
import torch

from portrait4d.data.image_io import save_image, save_video
from portrait4d.files.errors import UserError
from portrait4d.webapp.uploads import UploadLimits, accept_upload, sniff_suffix
from tests.helpers.hostile_files import png_header, write_unusable

LIMITS = UploadLimits(max_bytes=1 << 20, max_seconds=2)


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    folder = tmp_path / "uploads"
    folder.mkdir()
    return folder


@pytest.fixture
def job(tmp_path: Path) -> Path:
    folder = tmp_path / "job"
    folder.mkdir()
    return folder


def put(uploads: Path, name: str, data: bytes) -> Path:
    path = uploads / "hash" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def noise(size: int) -> torch.Tensor:
    return torch.rand(3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def refusal(path: object, uploads: Path, job: Path) -> str:
    """Return why an upload is refused; nothing of it may stay, and no path may be told."""
    with pytest.raises(UserError) as caught:
        accept_upload({"path": str(path)}, uploads, job, LIMITS)
    assert not list(job.iterdir()) and not list(uploads.rglob("*"))
    assert str(uploads) not in str(caught.value) and str(job) not in str(caught.value)
    return str(caught.value)


def test_pictures_and_films_are_known_by_content(uploads: Path, job: Path) -> None:
    save_image(uploads / "hash" / "source.png", noise(64))
    (uploads / "hash" / "source.png").rename(uploads / "hash" / "<script>alert(1);.mp4")
    found = accept_upload(str(uploads / "hash" / "<script>alert(1);.mp4"), uploads, job, LIMITS)
    assert (found.kind, found.path, found.width, found.height) == ("picture", job / "upload.png", 64, 64)
    assert not list(uploads.iterdir())
    save_video(uploads / "film.mp4", [noise(64)] * 10, 10)
    (uploads / "film.mp4").rename(uploads / "film.jpg")
    found = accept_upload({"path": str(uploads / "film.jpg")}, uploads, job, LIMITS)
    assert (found.kind, found.path, found.duration_s) == ("film", job / "upload.mp4", 1.0)


def test_hostile_files_are_refused_and_gone(uploads: Path, job: Path, tmp_path: Path) -> None:
    strange = tmp_path / "strange"
    strange.mkdir()
    names = write_unusable(strange) - {"nobody.png"}  # a picture like any other; it shows no face
    assert len(names) > 15
    for name in names:
        assert refusal(put(uploads, name, (strange / name).read_bytes()), uploads, job).endswith((".", "side."))


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("text.mp4", b"no film\n" * 50, "neither"),
        ("list.m3u8", b"#EXTM3U\nfile:///etc/passwd\n", "neither"),
        ("list.mp4", b"ffconcat version 1.0\nfile /etc/passwd\n", "neither"),
        ("nothing.png", b"", "empty"),
        ("big.png", bytes((1 << 20) + 1), "at most 1 MB"),
        ("header.mp4", struct.pack(">I", 2**32 - 1) + b"ftypisom" + bytes(64), "not a film"),
        ("long.mp4", struct.pack(">I4sQ", 1, b"ftyp", 2**40) + bytes(64), "not a film"),
        ("bytes.webm", b"\x1a\x45\xdf\xa3" + bytes(200), "not a film"),
        ("cut.jpg", b"\xff\xd8\xff" + bytes(40), "damaged"),
    ],
)
def test_reasons(name: str, data: bytes, reason: str, uploads: Path, job: Path) -> None:
    assert reason in refusal(put(uploads, name, data), uploads, job)


def test_sizes_and_lengths(uploads: Path, job: Path) -> None:
    for size, reason in (((1, 1), "too few"), ((10000, 60), "at most 8192"), ((6000, 6000), "32 million")):
        assert reason in refusal(put(uploads, "a.png", png_header(*size)), uploads, job)
    path = uploads / "hash" / "a.mp4"
    save_video(path, [torch.zeros(3, 64, 64)] * 36, 0.01)
    assert "60 minutes" in refusal(path, uploads, job)


def test_archives_are_not_opened(uploads: Path, job: Path) -> None:
    path = uploads / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(1 << 24))
    assert "neither" in refusal(path, uploads, job)


def test_paths_outside_are_left_alone(uploads: Path, job: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    save_image(secret, noise(64))
    (uploads / "link.png").symlink_to(secret)
    claims = [str(secret), f"{uploads}/../secret.png", str(uploads / "link.png"), str(uploads), "", "\0", None, 7, {}]
    for claim in [*claims, {"path": ["a"]}, [str(secret)]]:
        with pytest.raises(UserError, match="choose it again"):
            accept_upload(claim, uploads, job, LIMITS)
    assert secret.exists() and not list(job.iterdir())


def test_only_containers_that_name_no_other_files() -> None:
    assert sniff_suffix(b"RIFF\0\0\0\0WAVE") is None
    assert sniff_suffix(b"RIFF\0\0\0\0AVI LIST") == ".avi"
    assert sniff_suffix(b"\0\0\0\x18ftypheic") == ".mp4"  # refused later: it holds no film
    assert sniff_suffix(b"GIF89a") is sniff_suffix(b"") is None
