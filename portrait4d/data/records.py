"""Database records: the protobuf messages (proto2) that the reference's generators write and its loaders read.

Only varints and length-delimited fields occur, so this small codec replaces a protobuf runtime. It writes fields in
number order and none that is absent, as protobuf does: the same values give the same bytes. Source: datasets.md §4.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

Fields = dict[str, int | memoryview]
"""Decoded fields that are present. Byte fields are views of the record: copy what must outlive it."""

_VARINT, _FIXED64, _BYTES, _GROUP, _GROUP_END, _FIXED32 = range(6)
_MAX_GROUP_DEPTH = 32


@dataclass(frozen=True)
class RecordKind:
    """A message type: its name, and its fields in number order from 1, int32 ones before byte strings."""

    name: str
    integers: tuple[str, ...]
    blobs: tuple[str, ...]

    @property
    def fields(self) -> tuple[str, ...]:
        """All field names in number order."""
        return self.integers + self.blobs


def _kind(name: str, integers: str, blobs: str) -> RecordKind:
    return RecordKind(name, tuple(integers.split()), tuple(blobs.split()))


_SIZES = "channels height width num"
_OFFLINE = "images segs features depths triplanes labels mots"
_OFFLINE_NEW = "images segs segs_render features depths triplanes labels mots bgs"

STILL = _kind("Datum_genhead", "channels height width", "image seg labels mots")
"""One picture: `image` and `seg` are encoded files, `labels` 437 and `mots` 548 little-endian float32."""
CLIP = _kind("Datum_vfhq", _SIZES, "images segs labels mots")
"""One clip of `num` frames: raw uint8 images (num, H, W, 3) and segs (num, H, W[, C]), float32 labels and mots."""

RECORD_KINDS = {
    kind.name: kind
    for kind in (
        STILL,
        CLIP,
        _kind("Datum_ffhq", _SIZES, "images segs labels mots"),
        _kind("Datum", _SIZES, _OFFLINE),
        _kind("Datum_static", _SIZES, _OFFLINE),
        _kind("Datum_new", _SIZES, _OFFLINE_NEW),
        _kind("Datum_static_new", _SIZES, _OFFLINE_NEW),
    )
}
"""Every message type of the reference by name."""


class RecordStore(Protocol):
    """Numbered records of one kind, whatever container they lie in."""

    path: Path
    kind: RecordKind

    def __len__(self) -> int: ...

    def fields(self, index: int) -> AbstractContextManager[Fields]:
        """Give the fields of record `index`; byte fields are valid inside the block only."""
        ...


def encode_record(kind: RecordKind, values: Mapping[str, int | bytes | memoryview]) -> bytes:
    """Write a record; fields that `values` lacks are left out.

    Raises:
        ValueError: a field that the kind does not have, a value of the wrong type, or an integer beyond 32 bits.
    """
    unknown = set(values) - set(kind.fields)
    if unknown:
        raise ValueError(f"values: expected fields of {kind.name} {kind.fields}, got {sorted(unknown)}")
    parts: list[bytes | memoryview] = []
    for number, name in enumerate(kind.fields, 1):
        if name not in values:
            continue
        value = values[name]
        if name in kind.integers:
            if isinstance(value, bool) or not isinstance(value, int) or not -(2**31) <= value < 2**31:
                raise ValueError(f"{name}: expected an integer of 32 bits, got {value!r:.40}")
            parts.append(_varint(number << 3 | _VARINT) + _varint(value & (2**64 - 1)))
        else:
            if not isinstance(value, bytes | bytearray | memoryview):
                raise ValueError(f"{name}: expected bytes, got {type(value).__name__}")
            parts += [_varint(number << 3 | _BYTES) + _varint(len(memoryview(value).cast("B"))), value]
    return b"".join(parts)


def decode_record(kind: RecordKind, data: bytes | memoryview) -> Fields:
    """Read a record without copying its byte fields. Unknown fields are skipped; of a repeated one the last counts.

    Raises:
        ValueError: `data` is not a well-formed message: cut short, an over-long varint, an unknown wire type.
    """
    view = memoryview(data).cast("B")
    fields: Fields = {}
    position = 0
    while position < len(view):
        tag, position = _read_varint(view, position)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 2**29:
            raise ValueError(f"record: expected a field number from 1 to 2^29 - 1, got {number}")
        name = kind.fields[number - 1] if number <= len(kind.fields) else None
        if name in kind.integers and wire == _VARINT:
            value, position = _read_varint(view, position)
            fields[name] = (value & 0xFFFFFFFF ^ 2**31) - 2**31
        elif name in kind.blobs and wire == _BYTES:
            start, position = _span(view, position)
            fields[name] = view[start:position]
        else:
            position = _skip(view, position, number, wire, 0)
    return fields


def require_fields(kind: RecordKind, fields: Fields) -> None:
    """Check that every field of the kind is present.

    Raises:
        ValueError: naming those that are missing.
    """
    missing = [name for name in kind.fields if name not in fields]
    if missing:
        raise ValueError(f"record: expected all fields of {kind.name}, got none for {', '.join(missing)}")


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_varint(view: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for count in range(10):
        if position + count >= len(view):
            raise ValueError("record: expected a complete message, got one that is cut short")
        byte = view[position + count]
        value |= (byte & 127) << (7 * count)
        if byte < 128:
            return value & (2**64 - 1), position + count + 1
    raise ValueError("record: expected integers of at most 10 bytes, got a longer one")


def _advance(view: memoryview, position: int, length: int) -> int:
    if length > len(view) - position:
        left = len(view) - position
        raise ValueError(f"record: expected a complete message, got one cut short ({length} bytes wanted, {left} left)")
    return position + length


def _span(view: memoryview, position: int) -> tuple[int, int]:
    length, start = _read_varint(view, position)
    return start, _advance(view, start, length)


def _skip(view: memoryview, position: int, number: int, wire: int, depth: int) -> int:
    if wire == _VARINT:
        return _read_varint(view, position)[1]
    if wire == _BYTES:
        return _span(view, position)[1]
    if wire in (_FIXED32, _FIXED64):
        return _advance(view, position, 4 if wire == _FIXED32 else 8)
    if wire != _GROUP or depth == _MAX_GROUP_DEPTH:
        raise ValueError(f"record: expected wire types 0, 1, 2, 3 or 5, got {wire} at byte {position}")
    while True:
        tag, position = _read_varint(view, position)
        if tag & 7 == _GROUP_END:
            if tag >> 3 != number:
                raise ValueError(f"record: expected the end of group {number}, got that of {tag >> 3}")
            return position
        position = _skip(view, position, tag >> 3, tag & 7, depth + 1)
