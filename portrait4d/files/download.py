"""Download files: resumed after an interruption, verified, in their place only when complete. Standard library only.

A download in progress lies beside its target as `NAME.part`, with the address and the server's version mark in
`NAME.part.json`; running the same command again goes on from there. TLS certificates are verified, and a redirection
from https to http is refused.
"""

import hashlib
import http.client
import json
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from portrait4d.files.atomic import write_text
from portrait4d.files.errors import UserError

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and the total, None while unknown."""

_BLOCK = 1 << 20
_HEADERS = {"User-Agent": "portrait4d", "Accept-Encoding": "identity"}
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_BROKEN = (OSError, http.client.HTTPException)
"""Timeouts, resets, refused connections, bodies cut short: worth another attempt."""


class DownloadError(UserError):
    """A download that cannot be completed or verified."""


class _BrokenTransferError(Exception):
    """A transfer that ended early; what arrived is kept."""


@dataclass(frozen=True)
class RemoteFile:
    """A file on a server: `url`, and where known its `size` in bytes and hexadecimal `sha256`."""

    url: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Patience:
    """How long to try: `attempts` in a row without a new byte, `wait_s` before the second one and then doubled."""

    attempts: int = 5
    wait_s: float = 1.0
    timeout_s: float = 30.0


@dataclass(frozen=True)
class Downloaded:
    """A finished download: `size` in bytes, `sha256`, and whether that sha256 was known before (`verified`)."""

    size: int
    sha256: str
    verified: bool


class _SafeRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise DownloadError(f"{req.full_url}: redirected to {newurl}, which is not encrypted; refused")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_SafeRedirect)


def open_url(url: str, headers: dict[str, str] | None = None, timeout_s: float = 30.0) -> http.client.HTTPResponse:
    """Open an http or https address for reading.

    Raises:
        DownloadError: another scheme, no usable address, or a redirection from https to http.
        OSError: the server cannot be reached, or answers with an error status (`urllib.error.HTTPError`).
    """
    if not url.startswith(("https://", "http://")):
        raise DownloadError(f"{url}: expected an address that begins with https:// or http://")
    try:
        return _OPENER.open(urllib.request.Request(url, headers=_HEADERS | (headers or {})), timeout=timeout_s)
    except (ValueError, http.client.InvalidURL) as error:
        raise DownloadError(f"{url}: no usable address ({error}); write special letters as %XX") from error


def download_file(
    remote: RemoteFile, target: str | Path, progress: Progress | None = None, patience: Patience | None = None
) -> Downloaded:
    """Download a file to `target`, going on with what an earlier call left; an existing `target` is replaced.

    Raises:
        DownloadError: the server does not have the file, keeps breaking off, or sends something whose size or sha256
            is not the expected one; the file cannot be written; or another process downloads it.
    """
    target, patience = Path(target), patience or Patience()
    if target.is_dir():
        raise DownloadError(f"{target}: is a folder; remove it, or choose another folder")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _part_path(target).open("ab") as part:
            _lock(part, target)
            return _complete(remote, target, part, progress or (lambda done, total: None), patience)
    except OSError as error:
        raise DownloadError(f"{target}: cannot be written ({error.strerror}); choose another folder") from error


def digest_file(path: str | Path) -> str:
    """Return the hexadecimal sha256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _complete(remote: RemoteFile, target: Path, part: BinaryIO, progress: Progress, patience: Patience) -> Downloaded:
    part_path = _part_path(target)
    for is_last in (False, True):
        resumed = part.tell() > 0
        _transfer(remote, part, part_path, progress, patience)
        sha256, size = digest_file(part_path), part.tell()
        if (remote.sha256 or sha256) == sha256 and (remote.size or size) == size:
            break
        _restart(part)
        _note_path(part_path).unlink(missing_ok=True)
        if is_last or not resumed:  # an old part may belong to another version: only then try once more
            part_path.unlink(missing_ok=True)
            expected = f"{remote.size or size} bytes with sha256 {remote.sha256 or 'unknown'}"
            raise DownloadError(f"{remote.url}: expected {expected}, got {size} bytes with {sha256}; nothing was kept")
    os.fsync(part.fileno())
    os.replace(part_path, target)
    _note_path(part_path).unlink(missing_ok=True)
    return Downloaded(size, sha256, remote.sha256 is not None)


def _transfer(remote: RemoteFile, part: BinaryIO, part_path: Path, progress: Progress, patience: Patience) -> None:
    failures = 0
    while True:
        before = part.tell()
        try:
            _receive(remote, part, part_path, progress, patience.timeout_s)
            return
        except urllib.error.HTTPError as error:
            if error.code not in _TRANSIENT:
                raise DownloadError(f"{remote.url}: the server says {error.code} {error.reason}") from error
            problem = f"the server says {error.code} {error.reason}"
        except (_BrokenTransferError, *_BROKEN) as error:
            problem = " ".join(str(error).split()) or type(error).__name__
        failures = 0 if part.tell() > before else failures + 1
        if failures >= patience.attempts:
            kept = f"{part.tell()} bytes are kept" if part.tell() else "nothing arrived"
            raise DownloadError(f"{remote.url}: {problem}; {kept}, run the same command again to go on")
        time.sleep(patience.wait_s * 2 ** max(failures - 1, 0))


def _receive(remote: RemoteFile, part: BinaryIO, part_path: Path, progress: Progress, timeout_s: float) -> None:
    note_path, headers = _note_path(part_path), {}
    mark = _read_mark(note_path, remote)
    if part.tell() and (mark or remote.sha256):
        if part.tell() == remote.size:
            return
        headers = {"Range": f"bytes={part.tell()}-"} | ({"If-Range": mark} if mark else {})
    elif part.tell():
        _restart(part)  # nothing would tell whether the rest belongs to it
    try:
        response = open_url(remote.url, headers, timeout_s)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not headers:
            raise
        _restart(part)  # longer than the file
        raise _BrokenTransferError("the server has fewer bytes than arrived earlier") from error
    with response:
        total = _expected_total(response, part, remote)
        _write_mark(note_path, remote, response.headers.get("ETag"))
        _require_space(part_path, (total or 0) - part.tell())
        while block := response.read(_BLOCK):
            part.write(block)
            part.flush()
            progress(part.tell(), total)
            if total is not None and part.tell() > total:
                break
    if total is not None and part.tell() < total:
        raise _BrokenTransferError(f"the transfer broke off after {part.tell()} of {total} bytes")


def _expected_total(response: http.client.HTTPResponse, part: BinaryIO, remote: RemoteFile) -> int | None:
    """Return the size of the whole file; start over unless the answer goes on where the part ends."""
    length = response.headers.get("Content-Length")
    span, _, total_text = response.headers.get("Content-Range", "").partition("/")
    if response.status == 206 and span == f"bytes {part.tell()}-{span.rpartition('-')[2]}":
        total = int(total_text) if total_text.isdecimal() else None
    else:
        if response.status == 206:
            raise DownloadError(f"{remote.url}: the server answers with another range than it was asked for")
        _restart(part)
        total = int(length) if length and length.isdecimal() else None
    if None not in (total, remote.size) and total != remote.size:
        _restart(part)
        raise DownloadError(f"{remote.url}: expected {remote.size} bytes, the server offers {total}")
    return total if total is not None else remote.size


def _restart(part: BinaryIO) -> None:
    part.truncate(0)
    part.seek(0)


def _lock(part: BinaryIO, target: Path) -> None:
    import fcntl

    try:
        fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise DownloadError(f"{target}: another process downloads it; wait for it, or end it") from error
    part.seek(0, os.SEEK_END)


def _require_space(part_path: Path, needed: int) -> None:
    free = shutil.disk_usage(part_path.parent).free
    if needed > free:
        place = part_path.parent
        raise DownloadError(f"{place}: needs {needed / 2**20:.0f} MiB more, {free / 2**20:.0f} MiB are free")


def _part_path(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def _note_path(part_path: Path) -> Path:
    return part_path.with_name(part_path.name + ".json")


def _read_mark(note_path: Path, remote: RemoteFile) -> str | None:
    """Return the strong ETag under which the part was begun at the same address."""
    try:
        note = json.loads(note_path.read_text())
        return note["etag"] if note["url"] == remote.url else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _write_mark(note_path: Path, remote: RemoteFile, etag: str | None) -> None:
    strong = etag if etag and not etag.startswith("W/") else None
    write_text(note_path, json.dumps({"url": remote.url, "etag": strong}))
