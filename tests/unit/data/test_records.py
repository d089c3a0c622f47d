"""The record codec against hand-written bytes of the protobuf wire format."""

import pytest

from portrait4d.data.records import CLIP, RECORD_KINDS, STILL, decode_record, encode_record, require_fields

ONE = b"\x08\x03"  # field 1, varint 3


def test_bytes_are_those_of_the_wire_format() -> None:
    values = {"image": b"ab", "channels": 3, "width": 512, "height": -1, "mots": b""}
    expected = b"\x08\x03" + b"\x10" + b"\xff" * 9 + b"\x01" + b"\x18\x80\x04" + b"\x22\x02ab" + b"\x3a\x00"
    assert encode_record(STILL, values) == expected
    assert decode_record(STILL, expected) == {"channels": 3, "height": -1, "width": 512, "image": b"ab", "mots": b""}


def test_lengths_of_two_bytes_and_high_field_numbers() -> None:
    data = encode_record(RECORD_KINDS["Datum_new"], {"bgs": bytes(300)})
    assert data == b"\x6a\xac\x02" + bytes(300)


@pytest.mark.parametrize("kind", RECORD_KINDS.values(), ids=lambda kind: kind.name)
def test_all_kinds_come_back(kind: object) -> None:
    values = {name: 7 * k for k, name in enumerate(kind.integers)} | {name: name.encode() * 50 for name in kind.blobs}
    assert decode_record(kind, encode_record(kind, values)) == values


def test_byte_fields_are_views() -> None:
    data = bytearray(encode_record(STILL, {"image": b"abc"}))
    image = decode_record(STILL, data)["image"]
    data[-1] = ord("x")
    assert bytes(image) == b"abx"


@pytest.mark.parametrize(
    "unknown",
    [
        b"\xa8\x06\x07",  # field 101, varint
        b"\xa9\x06" + bytes(8),  # fixed 64
        b"\xaa\x06\x02xy",  # bytes
        b"\xad\x06" + bytes(4),  # fixed 32
        b"\xab\x06\x08\x01\xab\x01\xac\x01\xac\x06",  # a group in a group
        b"\x0a\x01z",  # field 1 with another wire type, as protobuf does
        b"\x20\x05",
    ],
)
def test_unknown_fields_are_skipped(unknown: bytes) -> None:
    assert decode_record(STILL, unknown + ONE + unknown) == {"channels": 3}


def test_the_last_of_a_repeated_field_counts() -> None:
    assert decode_record(STILL, ONE + b"\x08\x05") == {"channels": 5}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x08", "cut short"),
        (b"\x80", "cut short"),
        (b"\x22\x05abc", r"5 bytes wanted, 3 left"),
        (b"\x22" + b"\xff" * 9 + b"\x01", "cut short"),
        (b"\x08" + b"\xff" * 10 + b"\x01", "at most 10 bytes"),
        (b"\x00\x01", "field number from 1"),
        (b"\x0e", "wire types"),
        (b"\xa9\x06abc", "cut short"),
        (b"\xab\x06\x08\x01\xb4\x06", "the end of group 101, got that of 102"),
        (b"\xac\x06", "wire types"),
        (b"\xab\x06" * 100, "wire types"),
    ],
)
def test_malformed_bytes_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_record(STILL, data)


def test_every_cut_and_every_flipped_bit_is_read_or_refused() -> None:
    data = encode_record(CLIP, {"channels": 3, "num": 300, "images": bytes(200), "mots": b"\xff" * 9})
    for end in range(len(data)):
        try:
            decode_record(CLIP, data[:end])
        except ValueError:
            continue
    for position in range(20):
        for bit in range(8):
            spoilt = bytearray(data)
            spoilt[position] ^= 1 << bit
            try:
                decode_record(CLIP, spoilt)
            except ValueError:
                continue


def test_wrong_values_are_refused() -> None:
    with pytest.raises(ValueError, match="expected fields of Datum_genhead"):
        encode_record(STILL, {"num": 3})
    with pytest.raises(ValueError, match="channels: expected an integer of 32 bits"):
        encode_record(STILL, {"channels": 2**31})
    with pytest.raises(ValueError, match="image: expected bytes, got str"):
        encode_record(STILL, {"image": "text"})
    with pytest.raises(ValueError, match="got none for height, width, image, seg, labels, mots"):
        require_fields(STILL, {"channels": 3})
