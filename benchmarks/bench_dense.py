"""Time the dense layers and attention of the full-size network against PyTorch's, in turns, and print their errors."""

import argparse
import os
import time

os.environ.setdefault("PORTRAIT4D_NATIVE", "1")  # read at the first use

import torch
from torch import Tensor
from torch.nn import functional

from portrait4d.ops.attention import attend, attend_reference
from portrait4d.ops.backend import keep_freed_memory
from portrait4d.ops.dense import convolve3x3, linear

CONVOLUTIONS = ((352, 256, 256), (256, 128, 256), (128, 128, 256), (96, 256, 256), (256, 256, 256), (128, 128, 512))
"""Input and output channels and side of 3x3 convolutions of the plane generator and of super-resolution."""
LINEAR_MAPS = ((16384, 1024, 2048), (16384, 2048, 1024), (16384, 1024, 1024), (4096, 1024, 2048), (1024, 1024, 2048))
"""Tokens, input and output features of the transformer blocks."""
ATTENTION = ((2, 16384, 4096, 512), (4, 1024, 1024, 256))
"""Heads, queries, keys and width of a head in the plane generator and in re-enactment."""


def best_seconds(first: object, second: object, rounds: int) -> tuple[float, float]:
    """Return the smallest times of two calls, taken in turns after a warm-up."""
    best = [float("inf"), float("inf")]
    for number in range(rounds + 1):
        for which, call in enumerate((first, second)):
            started = time.perf_counter()
            call()
            if number:
                best[which] = min(best[which], time.perf_counter() - started)
    return best[0], best[1]


def relative_error(result: Tensor, exact: Tensor) -> float:
    """Return the largest error relative to the largest exact value."""
    return ((result.double() - exact).abs().max() / exact.abs().max()).item()


def report(name: str, flops: float, seconds: tuple[float, float], errors: tuple[float, float]) -> None:
    """Print one line of the table."""
    default, fast = seconds
    print(
        f"{name:28s} {default * 1e3:8.1f} {flops / default / 1e9:7.0f} {fast * 1e3:8.1f} {flops / fast / 1e9:7.0f} "
        f"{default / fast:6.2f} {errors[0]:9.1e} {errors[1]:9.1e}"
    )


def time_convolutions(dtype: torch.dtype, rounds: int, generator: torch.Generator) -> None:
    """Print the lines of the 3x3 convolutions."""
    for inputs, outputs, side in CONVOLUTIONS:
        x = torch.randn(1, inputs, side, side, generator=generator).to(dtype)
        weight = (torch.randn(outputs, inputs, 3, 3, generator=generator) / (3 * inputs**0.5)).to(dtype)
        last, weight_last = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, weight))

        def by_default(a: Tensor = last, b: Tensor = weight_last) -> Tensor:
            return functional.conv2d(a, b, padding=1)

        def by_us(a: Tensor = last, b: Tensor = weight) -> Tensor:
            return convolve3x3(a, b)

        exact = functional.conv2d(x[..., :34, :34].double(), weight.double(), padding=1)[..., :32, :32]
        errors = tuple(relative_error(call()[..., :32, :32], exact) for call in (by_default, by_us))
        seconds = best_seconds(by_default, by_us, rounds)
        report(f"conv3x3 {inputs}>{outputs}@{side}", 18 * inputs * outputs * side**2, seconds, errors)


def time_linear_maps(dtype: torch.dtype, rounds: int, generator: torch.Generator) -> None:
    """Print the lines of the linear maps."""
    for tokens, inputs, outputs in LINEAR_MAPS:
        x = torch.randn(1, tokens, inputs, generator=generator).to(dtype)
        weight = (torch.randn(outputs, inputs, generator=generator) / inputs**0.5).to(dtype)
        exact = functional.linear(x[:, :64].double(), weight.double())
        errors = tuple(relative_error(call(x, weight)[:, :64], exact) for call in (functional.linear, linear))
        seconds = best_seconds(
            lambda a=x, b=weight: functional.linear(a, b), lambda a=x, b=weight: linear(a, b), rounds
        )
        report(f"linear {tokens}x{inputs}>{outputs}", 2 * tokens * inputs * outputs, seconds, errors)


def time_attention(dtype: torch.dtype, rounds: int, generator: torch.Generator) -> None:
    """Print the lines of attention."""
    by_default = functional.scaled_dot_product_attention
    for heads, queries, keys, width in ATTENTION:
        sizes = (queries, keys, keys)
        tokens = tuple(torch.randn(1, heads, size, width, generator=generator).to(dtype) for size in sizes)
        exact = attend_reference(tokens[0][:, :, :64].double(), tokens[1].double(), tokens[2].double())
        errors = tuple(relative_error(call(*tokens)[:, :, :64], exact) for call in (by_default, attend))
        seconds = best_seconds(lambda t=tokens: by_default(*t), lambda t=tokens: attend(*t), rounds)
        report(f"attention {heads}x{queries}x{keys}x{width}", 4 * heads * queries * keys * width, seconds, errors)


@torch.inference_mode()
def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="repetitions; the smallest time counts")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's choice)")
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    keep_freed_memory()
    generator, dtype = torch.Generator().manual_seed(0), getattr(torch, options.dtype)
    threads = torch.get_num_threads()
    print(
        f"{options.dtype}, {threads} threads; ms and GFLOP/s of PyTorch's default, of ours, speed-up, relative errors"
    )
    for measure in (time_convolutions, time_linear_maps, time_attention):
        measure(dtype, options.rounds, generator)


if __name__ == "__main__":
    main()
