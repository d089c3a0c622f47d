"""The page, put together and served to this machine."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from socket import socket

from portrait4d.config.web_app import WebAppConfig
from portrait4d.files.errors import UserError
from portrait4d.inference.tracking import TrackerMaker
from portrait4d.webapp.guard import LOOPBACK, Guard, forbid_downloads
from portrait4d.webapp.state import AppState, bundled_portraits
from portrait4d.webapp.workspace import Workspace

_FORM_BYTES = 1 << 20
"""What a request may hold beside an uploaded file."""
_WAITING_JOBS = 24


def serve(
    config: WebAppConfig, started: Callable[[], None], published_trackers: Callable[[], TrackerMaker] | None = None
) -> None:
    """Serve the app until it is interrupted.

    Args:
        config: where, and how much a visitor may ask for.
        started: called when the page can be opened.
        published_trackers: gives what finds faces for networks that are not of the open head world; None: nothing.

    Raises:
        UserError: gradio is not installed, the network is missing or damaged, or the address cannot be used.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # uvicorn passes it on when it has ended
    workspace = Workspace()
    try:
        state = AppState(config, workspace, published_trackers)
        state.check_files()
        _prepare_environment(workspace)
        import uvicorn

        class Server(uvicorn.Server):
            async def startup(self, sockets: list[socket] | None = None) -> None:
                await super().startup(sockets)
                started()

        server = Server(
            uvicorn.Config(
                build_application(state), config.host, config.port, log_level="warning", timeout_graceful_shutdown=3
            )
        )
        try:
            server.run()
        except (KeyboardInterrupt, SystemExit):
            if not server.started:
                raise UserError(f"cannot listen on {config.host}:{config.port}; choose another --port") from None
    finally:
        workspace.close()


def _prepare_environment(workspace: Workspace) -> None:
    """Tell gradio, before it is imported, to phone nobody and to write into the workspace.

    Raises:
        UserError: gradio is not installed.
    """
    os.environ |= {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": str(workspace.uploads),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "GRADIO_SSR_MODE": "False",
    }
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise UserError(f"the app needs gradio ({error}): pip install 'portrait4d[app]'") from None


def build_application(state: AppState) -> Guard:
    """Return the ASGI application; `_prepare_environment` was called before."""
    import gradio as gr
    from fastapi import FastAPI, HTTPException
    from fastapi.responses import FileResponse

    from portrait4d.webapp.page import build_page
    from portrait4d.webapp.style import FONTS, MONOSPACE, page_style

    config = state.config
    server = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @server.get("/results/{token}/{name}")
    def send_result(token: str, name: str) -> FileResponse:
        path: Path | None = state.workspace.result(token, name)
        if path is None:
            raise HTTPException(404, "No longer here. Please make it again.")
        return FileResponse(path, headers={"cache-control": "private, no-store"})

    forbid_downloads()
    page = build_page(state)
    page.queue(max_size=_WAITING_JOBS, default_concurrency_limit=config.jobs, api_open=False)
    mounted = gr.mount_gradio_app(
        server, page, "/",
        server_name=config.host, server_port=config.port, max_file_size=config.max_bytes, footer_links=[],
        run_history=False, show_error=False, ssr_mode=False, enable_monitoring=False, pwa=False, mcp_server=False,
        theme=gr.themes.Base(font=list(FONTS), font_mono=list(MONOSPACE)),
        css=page_style(list(bundled_portraits().values())),
    )  # fmt: skip
    hosts = LOOPBACK if config.host in LOOPBACK else None
    return Guard(mounted, config.max_bytes + _FORM_BYTES, hosts, state.workspace.sweep)
