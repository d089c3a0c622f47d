"""The open head reduced for fitting, once per test run."""

from functools import cache

from data_preprocess.flame_fitting.fitting_head import FittedParts, reduce_head
from portrait4d.synthetic_heads.figure import open_head_model


@cache
def open_head_parts() -> FittedParts:
    """Return the reduced open head. Do not change it."""
    return reduce_head(open_head_model())
