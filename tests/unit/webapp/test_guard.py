"""The guard before gradio, driven as an ASGI server drives it."""

import asyncio
from collections.abc import Callable, Iterable

import pytest

from portrait4d.webapp.guard import LOOPBACK, Guard


async def echo(scope: dict, receive: object, send: object) -> None:
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message["body"]), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


def ask(
    headers: dict[str, str],
    chunks: Iterable[bytes] = (b"",),
    hosts: tuple[str, ...] | None = LOOPBACK,
    path: str = "/",
    before_upload: Callable[[], None] = lambda: None,
) -> tuple[int, dict[bytes, bytes], bytes]:
    """Send a POST to an app that takes 100 bytes; return status, headers and body."""
    sent, bodies = [], list(chunks)

    async def receive() -> dict:
        body = bodies.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(bodies)}

    async def send(message: dict) -> None:
        sent.append(message)

    lines = [(k.encode(), v.encode()) for k, v in headers.items()]
    scope = {"type": "http", "method": "POST", "path": path, "headers": lines}
    asyncio.run(Guard(echo, 100, hosts, before_upload)(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(message["body"] for message in sent[1:])


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost", "LOCALHOST:80", "[::1]:80", "127.0.0.1"])
def test_this_machine_may_ask_and_pages_load_nothing_else(host: str) -> None:
    status, headers, body = ask({"host": host}, [b"a" * 60, b"b" * 40])
    assert (status, body) == (200, b"100")
    policy = headers[b"content-security-policy"].decode()
    assert "default-src 'self'" in policy and "http" not in policy and "*" not in policy


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[::2]"])
def test_other_names_for_this_machine_are_refused(host: str) -> None:
    assert ask({"host": host})[0] == 421


@pytest.mark.parametrize(
    "origin", ["http://evil.com", "https://localhost.evil.com", "null", "", "http://localhost@evil.com", "http://[::1"]
)
@pytest.mark.parametrize("hosts", [LOOPBACK, None])
def test_pages_of_other_sites_are_refused(origin: str, hosts: tuple[str, ...] | None) -> None:
    assert ask({"host": "localhost:7860", "origin": origin}, hosts=hosts)[0] == 403


@pytest.mark.parametrize(
    ("host", "origin", "hosts"),
    [
        ("localhost:7860", "http://localhost:7860", LOOPBACK),
        ("[::1]:80", "http://[::1]:80", LOOPBACK),
        ("Heads.example:80", "https://heads.example", None),
    ],
)
def test_the_own_page_may_ask(host: str, origin: str, hosts: tuple[str, ...] | None) -> None:
    assert ask({"host": host, "origin": origin}, hosts=hosts)[0] == 200


@pytest.mark.parametrize(
    ("path", "headers", "calls"),
    [
        ("/gradio_api/upload", {}, 1),
        ("/gradio_api/queue/join", {}, 0),
        ("/gradio_api/upload", {"origin": "http://evil.com"}, 0),
    ],
)
def test_room_is_made_before_uploads(path: str, headers: dict[str, str], calls: int) -> None:
    made: list[bool] = []
    ask({"host": "localhost"} | headers, path=path, before_upload=lambda: made.append(True))
    assert len(made) == calls


def test_large_bodies_are_cut_off() -> None:
    assert ask({"host": "localhost", "content-length": "101"})[0] == 413
    assert ask({"host": "localhost", "content-length": "-1"})[0] == 413
    status, _, body = ask({"host": "localhost"}, [b"a" * 60] * 2)
    assert (status, body) == (413, b"At most 0 MB are accepted")
