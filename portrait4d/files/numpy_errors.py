"""Errors of numpy's reader."""

import tokenize
import zipfile

UNREADABLE_ARRAY = (
    OSError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    SyntaxError,
    OverflowError,
    MemoryError,
    tokenize.TokenError,
    zipfile.BadZipFile,
)
"""What `numpy.load` raises for files that are not .npy, damaged or cut short."""
