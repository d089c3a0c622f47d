"""How the page's controls reach the app: bounded jobs, and errors that the page can show."""

import functools
from collections.abc import Callable
from typing import Any

import gradio as gr

from portrait4d.files.errors import UserError
from portrait4d.webapp.markup import notice
from portrait4d.webapp.uploads import readable


def answered(function: Callable[..., tuple], results: int, cleared: int = 0) -> Callable[..., tuple]:
    """Let a handler of the page return a message too, empty if all went well.

    What a visitor can put right becomes that message.

    Args:
        function: returns `results` values.
        results: how many.
        cleared: so many of them, the last ones, are emptied if it fails (upload fields); the others stay as they are.
    """
    refused = [gr.skip()] * (results - cleared) + [None] * cleared

    @functools.wraps(function)
    def run(*values: Any) -> tuple:
        try:
            return (*function(*values), "")
        except UserError as error:
            return (*refused, notice(readable(error), is_error=True))

    return run


def bounded(kind: str, jobs: int) -> dict[str, Any]:
    """Return the settings of an event of which, with others of its kind, only so many run at a time."""
    return {"concurrency_id": kind, "concurrency_limit": jobs, "api_visibility": "private"}
