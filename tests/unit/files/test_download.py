"""Downloads from a local server: complete, broken off, resumed, changed meanwhile, wrong, refused."""

import fcntl
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from portrait4d.files import download
from portrait4d.files.append import append_line
from portrait4d.files.download import DownloadError, Patience, RemoteFile, download_file
from portrait4d.files.model_hub import find_in_repository, list_repository
from tests.helpers.file_server import FileServer, serve_files

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = Patience(attempts=3, wait_s=0.001, timeout_s=5)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serve_files() as state:
        state.files["/f.bin"] = CONTENT
        yield state


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "f.bin"


def remote(server: FileServer, **known: object) -> RemoteFile:
    return RemoteFile(f"{server.url}/f.bin", **known)


def ranges(server: FileServer) -> list[str | None]:
    return [wanted for _, wanted in server.requests]


def assert_only(target: Path, content: bytes = CONTENT) -> None:
    assert target.read_bytes() == content
    assert [path.name for path in target.parent.iterdir()] == [target.name]


@pytest.mark.parametrize("known", [{}, {"size": len(CONTENT)}, {"sha256": SHA256}])
def test_a_file_arrives(server: FileServer, target: Path, known: dict) -> None:
    steps = []
    result = download_file(remote(server, **known), target, lambda done, total: steps.append((done, total)), QUICK)
    assert (result.size, result.sha256, result.verified) == (len(CONTENT), SHA256, "sha256" in known)
    assert steps[-1] == (len(CONTENT), len(CONTENT))
    assert_only(target)


@pytest.mark.parametrize("with_etags", [True, False])
def test_a_broken_transfer_goes_on_where_it_stopped(server: FileServer, target: Path, with_etags: bool) -> None:
    server.with_etags = with_etags
    server.breaks["/f.bin"] = [1000, 0, 0, 500]
    download_file(remote(server, sha256=SHA256), target, patience=QUICK)
    assert ranges(server) == [None, "bytes=1000-", "bytes=1000-", "bytes=1000-", "bytes=1500-"]
    assert_only(target)


def test_the_next_run_goes_on(server: FileServer, target: Path) -> None:
    server.breaks["/f.bin"] = [1000, 0, 0, 0]
    with pytest.raises(DownloadError, match="broke off after 1000 of 10240 bytes; 1000 bytes are kept, run the same"):
        download_file(remote(server), target, patience=QUICK)
    assert not target.exists()
    server.requests.clear()
    download_file(remote(server), target, patience=QUICK)
    assert ranges(server) == ["bytes=1000-"]
    assert_only(target)


def test_a_file_that_changed_meanwhile_is_not_mixed(server: FileServer, target: Path) -> None:
    server.breaks["/f.bin"] = [1000, 0, 0, 0]
    with pytest.raises(DownloadError):
        download_file(remote(server), target, patience=QUICK)
    server.files["/f.bin"] = CONTENT[::-1]
    download_file(remote(server), target, patience=QUICK)
    assert_only(target, CONTENT[::-1])


def test_nothing_is_joined_that_nothing_can_check(server: FileServer, target: Path) -> None:
    server.with_etags = False
    server.breaks["/f.bin"] = [1000]
    download_file(remote(server), target, patience=QUICK)
    assert ranges(server) == [None, None]
    assert_only(target)


def test_servers_without_ranges_send_all_again(server: FileServer, target: Path) -> None:
    server.with_ranges = False
    server.breaks["/f.bin"] = [1000]
    download_file(remote(server, sha256=SHA256), target, patience=QUICK)
    assert_only(target)


@pytest.mark.parametrize("length", [700, len(CONTENT), len(CONTENT) + 5])
def test_a_part_of_something_else_is_given_up(server: FileServer, target: Path, length: int) -> None:
    target.parent.mkdir()
    target.with_name("f.bin.part").write_bytes(b"x" * length)
    download_file(remote(server, sha256=SHA256, size=len(CONTENT)), target, patience=QUICK)
    assert_only(target)


def test_a_wrong_hash_leaves_nothing_new(server: FileServer, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(b"old")
    with pytest.raises(DownloadError, match=f"with sha256 {'0' * 64}, got 10240 bytes with {SHA256}; nothing was kept"):
        download_file(remote(server, sha256="0" * 64), target, patience=QUICK)
    assert len(server.requests) == 1
    assert_only(target, b"old")


def test_a_wrong_size_is_noticed_before_the_transfer(server: FileServer, target: Path) -> None:
    with pytest.raises(DownloadError, match="expected 99 bytes, the server offers 10240"):
        download_file(remote(server, size=99), target, patience=QUICK)
    assert not target.exists()


def test_error_pages(server: FileServer, target: Path) -> None:
    server.statuses["/f.bin"] = [503, 429]
    download_file(remote(server), target, patience=QUICK)  # busy: asked again
    assert_only(target)
    server.statuses["/f.bin"] = [503] * 3
    with pytest.raises(DownloadError, match="the server says 503.*; nothing arrived"):
        download_file(remote(server), target, patience=QUICK)
    server.requests.clear()
    with pytest.raises(DownloadError, match="/absent: the server says 404"):
        download_file(RemoteFile(f"{server.url}/absent"), target, patience=QUICK)
    assert len(server.requests) == 1
    with pytest.raises(DownloadError, match="expected an address that begins with https"):
        download_file(RemoteFile("file:///etc/passwd"), target, patience=QUICK)


@pytest.mark.parametrize("end", ["127.0.0.1/ä", "127.0.0.1/a b", "127.0.0.1:port/x", "[::1/x"])
def test_addresses_that_are_none(target: Path, end: str) -> None:
    with pytest.raises(DownloadError, match="no usable address .*; write special letters as %XX"):
        download_file(RemoteFile(f"http://{end}"), target, patience=QUICK)


def test_places_that_cannot_be_written(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match="file/f.bin: cannot be written .*; choose another folder"):
        download_file(remote(server), tmp_path / "file/f.bin", patience=QUICK)
    (tmp_path / "f.bin").mkdir()
    with pytest.raises(DownloadError, match="f.bin: is a folder"):
        download_file(remote(server), tmp_path / "f.bin", patience=QUICK)
    assert not server.requests


def test_an_unreachable_server(tmp_path: Path) -> None:
    with serve_files() as gone:
        pass
    with pytest.raises(DownloadError, match="nothing arrived"):
        download_file(RemoteFile(f"{gone.url}/f"), tmp_path / "f", patience=QUICK)


def test_encryption_is_not_given_up() -> None:
    handler = download._SafeRedirect()
    request = download.urllib.request.Request("https://a.example/f", headers={"Range": "bytes=5-"})
    with pytest.raises(DownloadError, match="not encrypted; refused"):
        handler.redirect_request(request, None, 302, "", {}, "http://b.example/f")
    followed = handler.redirect_request(request, None, 302, "", {}, "https://b.example/f")
    assert followed.full_url == "https://b.example/f" and followed.get_header("Range") == "bytes=5-"


def test_two_processes_do_not_write_one_file(server: FileServer, target: Path) -> None:
    target.parent.mkdir()
    with target.with_name("f.bin.part").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DownloadError, match="another process downloads it"):
            download_file(remote(server), target, patience=QUICK)


def test_a_small_disk(server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 2**13})
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DownloadError, match="needs 0 MiB more, 0 MiB are free"):
        download_file(remote(server), target, patience=QUICK)


def test_repositories_are_listed_page_by_page(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.url + "/")
    server.add_repository("o/n", {"x/a b.bin": CONTENT, "y/m.bin": b"1", "z/m.bin": b"22"})
    files = list_repository("o/n")
    assert files["x/a b.bin"] == RemoteFile(f"{server.url}/o/n/resolve/main/x/a%20b.bin", len(CONTENT), SHA256)
    assert find_in_repository(files, "data/z/m.bin").size == 2
    assert find_in_repository(files, "absent.bin") is None
    with pytest.raises(DownloadError, match="several files of the repository fit: y/m.bin, z/m.bin"):
        find_in_repository(files, "w/m.bin")
    with pytest.raises(DownloadError, match="the server says 404 .*check --repo"):
        list_repository("o/absent")
    with pytest.raises(DownloadError, match="--repo: expected OWNER/NAME, got 'n'"):
        list_repository("n")
    tree = "/api/models/o/n/tree/main?recursive=true"
    server.headers[tree] = {"Link": '<http://elsewhere.example/x>; rel="next"'}
    with pytest.raises(DownloadError, match="goes on at another server"):
        list_repository("o/n")
    server.headers[tree], server.files[tree] = {}, b"<html>"
    with pytest.raises(DownloadError, match="expected a list of files as JSON"):
        list_repository("o/n")


def test_lines_are_appended_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "log.jsonl"
    append_line(path, "é1")
    append_line(path, "2")
    assert path.read_bytes() == "é1\n2\n".encode()
    path.write_text("torn")
    append_line(path, "3")
    assert path.read_text() == "torn\n3\n"
    with pytest.raises(ValueError, match="line: expected one line, got 2"):
        append_line(path, "a\nb")
