"""Kinds of numbers that options take."""

import math

import click


class _Finite:
    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number.", param, ctx)
        return number


class FiniteFloat(_Finite, click.types.FloatParamType):
    """A number; nan and infinity, which click's own type lets pass, are refused."""


class FiniteFloatRange(_Finite, click.FloatRange):
    """A number in a range, which nan is in none of; infinity is refused as well."""
