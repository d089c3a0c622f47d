"""A web server on 127.0.0.1 that serves bytes, breaks transfers off, and looks like a model hub."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@dataclass
class FileServer:
    """What is served, how it misbehaves, and what was asked for.

    Attributes:
        url: address without a slash at its end.
        files: path -> content.
        breaks: path -> for each of the next answers, the bytes after which it breaks off.
        statuses: path -> error statuses of the next answers.
        headers: path -> additional headers.
        with_ranges, with_etags: whether ranges are honoured and entity tags sent.
        requests: (path, Range header) of every request.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    breaks: dict[str, list[int]] = field(default_factory=dict)
    statuses: dict[str, list[int]] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    with_ranges: bool = True
    with_etags: bool = True
    requests: list[tuple[str, str | None]] = field(default_factory=list)

    def add_repository(self, name: str, files: dict[str, bytes], revision: str = "main") -> None:
        """Serve files as a repository of a model hub does, its list in two pages."""
        entries = [{"type": "directory", "path": "a_folder", "size": 0}]
        for path, content in files.items():
            digest = hashlib.sha256(content).hexdigest()
            lfs = {"oid": digest, "size": len(content), "pointerSize": 134}
            entries.append({"type": "file", "path": path, "oid": "0" * 40, "size": len(content), "lfs": lfs})
            self.files[f"/{name}/resolve/{revision}/{path}"] = content
        tree = f"/api/models/{name}/tree/{revision}"
        self.files[f"{tree}?recursive=true"] = json.dumps(entries[:2]).encode()
        self.files[f"{tree}?recursive=true&cursor=1"] = json.dumps(entries[2:]).encode()
        self.headers[f"{tree}?recursive=true"] = {"Link": f'<{self.url}{tree}?recursive=true&cursor=1>; rel="next"'}


class _Handler(BaseHTTPRequestHandler):
    state: FileServer

    def do_GET(self) -> None:  # noqa: N802 (name of the library)
        state, path = self.state, self.path
        state.requests.append((path, self.headers.get("Range")))
        errors = state.statuses.get(path)
        if errors or path not in state.files:
            self.send_error(errors.pop(0) if errors else 404)
            return
        content = state.files[path]
        tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        start = self._start(tag)
        if start is not None and start >= len(content):
            self.send_error(416)
            return
        self.send_response(200 if start is None else 206)
        if start is not None:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if state.with_etags:
            self.send_header("ETag", tag)
        for name, value in state.headers.get(path, {}).items():
            self.send_header(name, value)
        body = content[start or 0 :]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        breaks = state.breaks.get(path)
        self.wfile.write(body[: breaks.pop(0)] if breaks else body)
        self.close_connection = True

    def _start(self, tag: str) -> int | None:
        wanted = self.headers.get("Range")
        is_same = self.headers.get("If-Range") in (None, tag)
        return int(wanted[6:-1]) if wanted and self.state.with_ranges and is_same else None

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serve_files() -> Iterator[FileServer]:
    """Serve on a free port while the block runs."""
    state = FileServer()
    handler = type("Handler", (_Handler,), {"state": state})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        state.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
