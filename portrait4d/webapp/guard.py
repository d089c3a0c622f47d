"""What stands before gradio: no other sites in the page, or asking; no other host names, large bodies, downloads."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

CONTENT_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",  # gradio compiles its templates in the browser
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
"""The page may load nothing but what this app serves; a browser enforces it, whatever the page's libraries try."""
_HEADERS = (
    (b"content-security-policy", CONTENT_POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")


class _BodyTooLargeError(Exception):
    """A request went on past the limit."""


class Guard:
    """ASGI middleware that adds headers, refuses unknown hosts and other sites' pages, and cuts off large bodies.

    Args:
        app: what is guarded.
        max_bytes: largest body of a request.
        hosts: names under which the app may be asked for, without port; None: any. A page elsewhere that makes its own
            name point to this machine is refused.
        before_upload: called in a thread before each upload, to make room.
    """

    def __init__(
        self,
        app: App,
        max_bytes: int,
        hosts: tuple[str, ...] | None,
        before_upload: Callable[[], None] = lambda: None,
    ) -> None:
        self.app, self.max_bytes, self.hosts, self.before_upload = app, max_bytes, hosts, before_upload

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        host, origin = _host_name(headers.get(b"host", b"")), headers.get(b"origin")
        if self.hosts is not None and host not in self.hosts:
            await _refuse(send, 421, "Unknown host")
            return
        # Browsers send uploads of other sites without asking first, and name the site here.
        if origin is not None and _origin_name(origin) not in (self.hosts or (host,)):
            await _refuse(send, 403, "Pages of other sites may not ask")
            return
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.max_bytes:
            await _refuse(send, 413, f"At most {self.max_bytes // 2**20} MB are accepted")
            return
        if scope["method"] == "POST" and scope["path"].endswith("/upload"):
            await asyncio.to_thread(self.before_upload)
        await self._pass_on(scope, receive, send)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        received, has_started = 0, False

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise _BodyTooLargeError
            return message

        async def with_headers(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                message = message | {"headers": [*message.get("headers", ()), *_HEADERS]}
            await send(message)

        try:
            await self.app(scope, counted, with_headers)
        except _BodyTooLargeError:
            if not has_started:
                await _refuse(send, 413, f"At most {self.max_bytes // 2**20} MB are accepted")


async def _refuse(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *_HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


def _host_name(host: bytes) -> str:
    """Return a Host header without its port, in lower case."""
    name = host.decode("latin-1").lower()
    return name[: name.index("]") + 1] if name.startswith("[") and "]" in name else name.partition(":")[0]


def _origin_name(origin: bytes) -> str | None:
    """Return the host of an Origin header without its port; None if it names none, as sandboxed pages do."""
    try:
        return _host_name(urlsplit(origin.decode("latin-1")).netloc.encode("latin-1")) or None
    except ValueError:
        return None


def forbid_downloads() -> None:
    """Keep gradio from fetching the address that a request names in place of an uploaded file."""
    from gradio import processing_utils
    from gradio.exceptions import Error

    async def refuse(url: str, cache_dir: str) -> str:
        raise Error(f"This app fetches nothing, neither {url[:80]}. Upload the file.", print_exception=False)

    processing_utils.async_ssrf_protected_download = refuse
