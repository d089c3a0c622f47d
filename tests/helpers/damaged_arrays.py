"""Files that `numpy.load` cannot read, each for another reason."""

_HEADER = b"{'descr': (((".ljust(117) + b"\n"
DAMAGED_ARRAYS = (b"", b"\x93NUMPY\x01\x00" + len(_HEADER).to_bytes(2, "little") + _HEADER, b"PK\x03\x04" + bytes(60))
"""Content that gives an EOFError, a tokenize.TokenError and a zipfile.BadZipFile."""
