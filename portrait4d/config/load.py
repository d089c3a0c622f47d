"""YAML and plain dictionaries to configuration dataclasses: unknown keys, wrong types, ranges fail by dotted path."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import TypeVar, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from portrait4d.files.errors import InputFileError, UserError

T = TypeVar("T")
# In the repository beside the package, in an installed package inside it.
_PLACES = (Path(__file__).parents[2] / "configs", Path(__file__).parents[1] / "configs")
CONFIG_FOLDER = next((place for place in _PLACES if place.is_dir()), _PLACES[1])


def config_from_dict(kind: type[T], values: dict) -> T:
    """Check plain values (as from JSON or YAML) against a configuration dataclass and build it.

    Raises:
        ValueError: naming every bad entry by its dotted path.
    """
    _be_strict(kind)
    try:
        return TypeAdapter(kind).validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        lines = (f"{'.'.join(map(str, e['loc'])) or kind.__name__}: {e['msg']}" for e in error.errors())
        raise ValueError("; ".join(lines)) from None
    except TypeError as error:
        raise ValueError(f"{kind.__name__}: {error}") from None


def load_config(kind: type[T], path: str | Path, overrides: Sequence[str] = ()) -> T:
    """Load a YAML file that holds what differs from the defaults of a configuration dataclass.

    Args:
        kind: the dataclass.
        path: the file; if it does not exist, its base name is looked up in `configs/`.
        overrides: dotted assignments such as "volume.box_warp=1.2", values in YAML.

    Raises:
        InputFileError: if the file is missing, no YAML mapping, or does not fit the dataclass.
        UserError: for a malformed override.
    """
    found = find_config(path)
    try:
        values = _read_yaml(found.read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputFileError(found, "is not YAML: " + " ".join(str(error).split())) from None
    if not isinstance(values, dict):
        raise InputFileError(found, f"expected a mapping at the top, got {type(values).__name__}")
    for override in overrides:
        _assign(values, override)
    try:
        return config_from_dict(kind, values)
    except ValueError as error:
        raise InputFileError(found, str(error), "see the dataclass " + kind.__name__) from None


def plain_config(config: object) -> dict:
    """Return a configuration as plain values, paths absolute: what `config_from_dict` takes."""
    return json.loads(json.dumps(asdict(config), default=lambda path: str(path.resolve())))


def find_config(path: str | Path) -> Path:
    """Return `path`, or the file of its base name in `configs/`.

    Raises:
        InputFileError: if neither exists.
    """
    path = Path(path)
    for candidate in (path, CONFIG_FOLDER / path.name):
        if candidate.is_file():
            return candidate
    known = ", ".join(sorted(p.name for p in CONFIG_FOLDER.glob("*.yaml"))) or "none"
    raise InputFileError(path, "no such configuration", f"in {CONFIG_FOLDER}: {known}")


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-4 is a number, as everywhere else (YAML 1.1 wants 1.0e-4), and a key may not come twice."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.composer.ComposerError(None, None, f"{key.value!r} comes twice", key.start_mark)
            seen.add(key.value)
        return node


_NUMBER_WITH_EXPONENT = re.compile(r"[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)[eE][-+]?[0-9]+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER_WITH_EXPONENT, list("-+.0123456789"))


def _read_yaml(text: str) -> object:
    return yaml.load(text, _Loader)  # noqa: S506 (a SafeLoader)


def _assign(values: dict, override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path.strip():
        raise UserError(f"{override!r}: expected section.key=value")
    *parents, key = path.strip().split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise UserError(f"{override!r}: {parent} is a value, not a section")
    try:
        values[key] = _read_yaml(text)
    except yaml.YAMLError:
        raise UserError(f"{override!r}: {text!r} is not a YAML value") from None


def _be_strict(kind: type) -> None:
    """Tell pydantic, here at the border, that a plain dataclass and its sections take no unknown keys, no NaN."""
    kind.__pydantic_config__ = {"extra": "forbid", "allow_inf_nan": False}
    hints = get_type_hints(kind)
    for field in fields(kind):
        if is_dataclass(hints[field.name]):
            _be_strict(hints[field.name])
