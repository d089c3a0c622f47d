"""What a call costs at least on a GPU: its operations and bytes, over the rates that the same GPU reaches."""

from collections.abc import Callable
from contextlib import ExitStack

import torch
from interleaved import seconds_of
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

MATRIX_SIZE = 8192
COPY_BYTES = 2**31
ROUNDS = 10


class TrafficCounter(TorchDispatchMode):
    """Sums up the bytes that operations read and write, every tensor once per operation; views count nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, func: torch._ops.OpOverload, types: tuple, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        """Run the operation and note its bytes."""
        result = func(*args, **(kwargs or {}))
        returns = func._schema.returns
        is_view = any(value.alias_info is not None and not value.alias_info.is_write for value in returns)
        if not is_view and not func._schema.name.startswith(("aten::empty", "prim::")):
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor.is_cuda)
        return result


def count_work(call: Callable[[], object]) -> dict[str, float]:
    """Return a call's floating-point operations (PyTorch's matrix products and convolutions) and bytes moved."""
    with ExitStack() as stack:
        traffic = stack.enter_context(TrafficCounter())
        flops = stack.enter_context(FlopCounterMode(display=False))
        call()
    return {"tflop": flops.get_total_flops() / 1e12, "gigabytes": traffic.bytes / 1e9}


def measure_ceilings(device: torch.device) -> dict[str, float]:
    """Return what the GPU reaches: TFLOP/s of a large bfloat16 product, GB/s read and written of a large copy."""
    a, b = (torch.randn(MATRIX_SIZE, MATRIX_SIZE, device=device).bfloat16() for _ in range(2))
    source = torch.empty(COPY_BYTES, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    rates = {}
    for name, amount, call in (
        ("bfloat16_tflops", 2 * MATRIX_SIZE**3 / 1e12, lambda: a @ b),
        ("copy_gigabytes_per_second", 2 * COPY_BYTES / 1e9, lambda: target.copy_(source)),
    ):
        for _ in range(3):
            call()
        seconds, _ = seconds_of(lambda call=call: [call() for _ in range(ROUNDS)] and None, device)
        rates[name] = amount * ROUNDS / seconds
    return rates


def roofline(call: Callable[[], object], call_ms: float, device: torch.device) -> dict[str, float]:
    """Compare a call's milliseconds with the times its operations and its bytes would take at the measured rates."""
    work, rates = count_work(call), measure_ceilings(device)
    by_flops = 1e3 * work["tflop"] / rates["bfloat16_tflops"]
    by_bytes = 1e3 * work["gigabytes"] / rates["copy_gigabytes_per_second"]
    floor = max(by_flops, by_bytes)
    return work | rates | {"ms_by_flops": by_flops, "ms_by_bytes": by_bytes, "share_of_roofline": floor / call_ms}
