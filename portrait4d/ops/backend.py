"""Process-wide settings of the numerical back ends."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = -1  # converted to the largest size


def keep_freed_memory() -> bool:
    """Make the C allocator keep freed buffers for reuse instead of returning each to the system.

    Layers on a CPU allocate buffers of some 100 MB for every call; fresh pages for them cost up to a tenth of a frame's
    time. Works with glibc; elsewhere nothing changes. Returns whether it took effect.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))
