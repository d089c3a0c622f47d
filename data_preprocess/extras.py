"""Packages that only some options need."""

from importlib import import_module
from types import ModuleType

from portrait4d.files.errors import UserError


def import_extra(package: str, purpose: str) -> ModuleType:
    """Import an optional package.

    Args:
        package: its name, for Python and for pip.
        purpose: what needs it, for the message.

    Raises:
        UserError: it is not installed; the text has the command that installs it.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        problem = f"{purpose} needs the Python package {package} ({error})"
        raise UserError(f"{problem}; run: python -m pip install {package}") from error
