"""Devices, process-wide settings of the numerical back ends, and whether the native operations serve.

The native operations (`csrc/`) are optional: wherever one serves, a PyTorch version computes the same. The environment
variable PORTRAIT4D_NATIVE decides, read at the first use:

* unset: they serve if they were built before (`make native`), so nothing ever waits for a compiler unasked;
* 1: they are built at the first use if need be, about a minute; if that fails, one line in the log says why;
* 0: they do not serve.

The library is kept in `$XDG_CACHE_HOME/portrait4d/native` (`~/.cache` by default), in a folder named after a hash of
sources, PyTorch, compiler flags and processor, so a change of any of them builds anew and none loads a stale one.
"""

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import torch
from torch import Tensor

from portrait4d.files.errors import UserError
from portrait4d.files.home import cache_folder
from portrait4d.ops.native_kernels import register_kernels

SOURCES = Path(__file__).parent / "csrc"
NAME = "portrait4d_native"
CUDA_ARCHITECTURES = (80, 89, 90)

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = -1  # converted to the largest size
_MADV_HUGEPAGE, _HUGE_PAGE = 14, 2**21
_HEAP_BYTES = 2**32

# Each product and sum must be rounded as PyTorch rounds it (`csrc/ray_math.h`): no contraction.
_EXACT_FLAGS = ("-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi")
CUDA_FLAGS = ("-std=c++17", "-O3", "-fmad=false")
_logger = logging.getLogger(__name__)
_switched_off = ContextVar("switched_off", default=False)
_textbook = ContextVar("textbook", default=False)


def pick_device(name: str) -> torch.device:
    """Return the device of a name; "auto" prefers CUDA.

    Raises:
        UserError: if CUDA is asked for and absent.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: this PyTorch finds no CUDA device; use --device cpu")
    return torch.device(name)


def fast_types(device: torch.device) -> tuple[str, ...]:
    """Return the types in which a device multiplies matrices well: float32, and bfloat16 where it has instructions."""
    if device.type == "cuda":
        return ("float32", "bfloat16") if torch.cuda.is_bf16_supported(including_emulation=False) else ("float32",)
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return ("float32", "bfloat16") if "avx512_bf16" in flags or "amx_bf16" in flags else ("float32",)


def keep_freed_memory() -> bool:
    """Make the C allocator keep freed buffers for reuse instead of returning each to the system.

    Layers on a CPU allocate buffers of some 100 MB for every call; fresh pages for them cost up to a tenth of a frame's
    time. Works with glibc; elsewhere nothing changes. Returns whether it took effect. The heap is also asked to be of
    huge pages, where scattered reads walk fewer page tables: volume rendering takes a tenth less time.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        library = ctypes.CDLL("libc.so.6")
        kept = bool(library.mallopt(_M_MMAP_MAX, 0)) and bool(library.mallopt(_M_TRIM_THRESHOLD, _NEVER))
    except (OSError, AttributeError):
        return False
    if kept:
        _ask_for_huge_pages()
    return kept


@functools.cache
def _ask_for_huge_pages() -> None:
    """Reserve addresses, not memory, for the heap to grow, and ask for huge pages there."""
    library = ctypes.CDLL("libc.so.6")
    library.malloc.argtypes, library.malloc.restype = (ctypes.c_size_t,), ctypes.c_void_p
    library.free.argtypes = (ctypes.c_void_p,)
    library.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    start = library.malloc(_HEAP_BYTES)
    if start is None:
        return
    first = -(-start // _HUGE_PAGE) * _HUGE_PAGE
    library.madvise(first, _HEAP_BYTES - _HUGE_PAGE, _MADV_HUGEPAGE)
    library.free(start)


@contextmanager
def exact_convolutions(device: torch.device, try_kernels: bool | None = None) -> Iterator[None]:
    """Keep float32 convolutions out of TF32, PyTorch's default that keeps 10 bits of factors, inside the context.

    Args:
        device: only on a GPU something changes.
        try_kernels: whether cuDNN tries out kernels for each new size, seconds in all, instead of guessing; None leaves
            that as it is.
    """
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    tries = cudnn.benchmark if try_kernels is None else try_kernels
    with cudnn.flags(enabled=True, benchmark=tries, deterministic=cudnn.deterministic, allow_tf32=False):
        yield


@contextmanager
def network_precision(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Let networks run in a type inside the context: by automatic casting, or in true float32."""
    casts = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
    with exact_convolutions(device), casts:
        yield


def native_serves(*tensors: Tensor) -> bool:
    """Tell whether the native operations serve these tensors: all float32, on the CPU or a GPU it knows."""
    device = tensors[0].device
    same = all(tensor.device == device and tensor.dtype == torch.float32 for tensor in tensors)
    return same and (device.type == "cpu" or (device.type == "cuda" and _builds_cuda())) and native_is_there()


def native_is_there() -> bool:
    """Tell whether the native operations are loaded, or can be, and not switched off."""
    return not _switched_off.get() and load_native()


@contextmanager
def without_native() -> Iterator[None]:
    """Let the PyTorch versions serve inside the context, to compare with."""
    token = _switched_off.set(True)
    try:
        yield
    finally:
        _switched_off.reset(token)


def fast_routes_serve() -> bool:
    """Tell whether dense layers and attention may take another form than PyTorch's plain one."""
    return not _textbook.get()


@contextmanager
def textbook_forms() -> Iterator[None]:
    """Let dense layers and attention take PyTorch's plain form inside the context, to compare with."""
    token = _textbook.set(True)
    try:
        yield
    finally:
        _textbook.reset(token)


@functools.cache
def load_native() -> bool:
    """Load the native operations as PORTRAIT4D_NATIVE says (module docstring); return whether they are there."""
    wish = os.environ.get("PORTRAIT4D_NATIVE", "")
    if wish == "0":
        return False
    if wish == "1":
        return build_native()
    with contextlib.suppress(OSError, UserError):  # a folder that is not there or must not be read
        return library_path().is_file() and build_native()
    return False


@functools.cache
def build_native() -> bool:
    """Build the native operations unless they are built, and load them; return whether that worked."""
    try:
        library = library_path()
        if not library.is_file():
            _compile(library)
        torch.ops.load_library(str(library))
    except (RuntimeError, OSError, ImportError, subprocess.SubprocessError, UserError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        _logger.warning("native operations are not available (%s); the PyTorch versions serve", reason)
        return False
    register_kernels()
    return True


@functools.cache
def library_path() -> Path:
    """Return where the library of this machine, PyTorch and source is, or would be."""
    digest = hashlib.sha256()
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.name.encode() + source.read_bytes())
    facts = (torch.__version__, torch.version.cuda, _EXACT_FLAGS, CUDA_FLAGS, _builds_cuda(), _processor())
    digest.update(repr(facts).encode())
    return cache_folder() / "native" / digest.hexdigest()[:16] / f"{NAME}.so"


def _processor() -> str:
    """Return what `-march=native` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine() + platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


@functools.cache
def _builds_cuda() -> bool:
    return torch.version.cuda is not None and torch.cuda.is_available() and shutil.which("nvcc") is not None


def _compile(library: Path) -> None:
    """Compile in a folder of its own, for this very processor if the compiler can, and move the result into place."""
    library.parent.mkdir(parents=True, exist_ok=True)
    for architecture in (("-march=native",), ()):
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            try:
                _compile_in(Path(folder), architecture)
            except RuntimeError:
                if not architecture:
                    raise
            else:
                (built,) = Path(folder).glob(f"{NAME}*.so")  # PyTorch numbers the builds of a process
                os.replace(built, library)
                return


def _compile_in(folder: Path, architecture: tuple[str, ...]) -> None:
    from torch.utils import cpp_extension  # slow to import

    cuda = _builds_cuda()
    patterns = ("*.cpp", "*.cu") if cuda else ("*.cpp",)
    flags = [*_EXACT_FLAGS, *architecture] + (["-fopenmp"] if sys.platform.startswith("linux") else [])
    # Not linked with an OpenMP runtime of its own: PyTorch's serves, with PyTorch's number of threads.
    cpp_extension.load(
        NAME,
        [str(path) for pattern in patterns for path in sorted(SOURCES.glob(pattern))],
        extra_cflags=flags + (["-DPORTRAIT4D_CUDA"] if cuda else []),
        extra_cuda_cflags=list(CUDA_FLAGS),
        build_directory=str(folder),
        with_cuda=cuda,
        is_python_module=False,
    )
