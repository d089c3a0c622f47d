"""Time the dense layers of the full-size network against PyTorch's defaults, in turns, and print their errors."""

import argparse
import time

import torch
from torch import Tensor
from torch.nn import functional

from portrait4d.ops.backend import keep_freed_memory
from portrait4d.ops.dense import convolve3x3, linear

CONVOLUTIONS = ((352, 256, 256), (256, 128, 256), (128, 128, 256), (96, 256, 256), (256, 256, 256), (128, 128, 512))
"""Input and output channels and side of 3x3 convolutions of the plane generator and of super-resolution."""
LINEAR_MAPS = ((16384, 1024, 2048), (16384, 2048, 1024), (16384, 1024, 1024), (4096, 1024, 2048), (1024, 1024, 2048))
"""Tokens, input and output features of the transformer blocks."""


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


@torch.inference_mode()
def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="repetitions; the smallest time counts")
    rounds = parser.parse_args().rounds
    keep_freed_memory()
    generator = torch.Generator().manual_seed(0)
    print(f"{torch.get_num_threads()} threads; ms and GFLOP/s of PyTorch's default, of ours, speed-up, relative errors")
    for inputs, outputs, side in CONVOLUTIONS:
        x = torch.randn(1, inputs, side, side, generator=generator)
        last = x.contiguous(memory_format=torch.channels_last)  # the default's best layout
        weight = torch.randn(outputs, inputs, 3, 3, generator=generator) / (3 * inputs**0.5)
        weight_last = weight.contiguous(memory_format=torch.channels_last)
        results = functional.conv2d(last, weight_last, padding=1), convolve3x3(x, weight)
        exact = functional.conv2d(x[..., :34, :34].double(), weight.double(), padding=1)[..., :32, :32]
        seconds = best_seconds(
            lambda a=last, b=weight_last: functional.conv2d(a, b, padding=1),
            lambda a=x, b=weight: convolve3x3(a, b),
            rounds,
        )
        errors = relative_error(results[0][..., :32, :32], exact), relative_error(results[1][..., :32, :32], exact)
        report(f"conv3x3 {inputs}>{outputs}@{side}", 18 * inputs * outputs * side**2, seconds, errors)
    for tokens, inputs, outputs in LINEAR_MAPS:
        x = torch.randn(1, tokens, inputs, generator=generator)
        weight = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
        exact = functional.linear(x[:, :64].double(), weight.double())
        errors = tuple(relative_error(call(x, weight)[:, :64], exact) for call in (functional.linear, linear))
        seconds = best_seconds(
            lambda a=x, b=weight: functional.linear(a, b), lambda a=x, b=weight: linear(a, b), rounds
        )
        report(f"linear {tokens}x{inputs}>{outputs}", 2 * tokens * inputs * outputs, seconds, errors)


if __name__ == "__main__":
    main()
