"""Numbers on command lines: nan and infinity are refused before anything is done."""

from importlib import import_module

import click
import pytest
from click.testing import CliRunner

from portrait4d.option_types import FiniteFloat, FiniteFloatRange

REQUIRED = {
    "animate": ["--source", "a.jpg", "--driving", "a.mp4", "--out", "b.mp4"],
    "export_head": ["--source", "a.jpg", "--out", "a.glb"],
    "render_planes": ["a.safetensors", "--out", "b.mp4"],
}


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999"])
@pytest.mark.parametrize(
    ("script", "option"),
    [
        (script, option)
        for script in ("animate", "render_planes", "gen_images_portrait4d")
        for option in ("--yaw", "--pitch", "--fps")
    ]
    + [("animate", "--orbit-s"), ("animate", "--still-fps"), ("animate", "--expression-scale")]
    + [(script, "--fov-deg") for script in ("render_planes", "gen_images_portrait4d", "gen_images_genhead")]
    + [("gen_images_portrait4d", "--shape-level"), ("export_head", "--shape-level"), ("app", "--max-megabytes")]
    + [("render_planes", "--seconds"), ("gen_images_genhead", "--trunc"), ("gen_images_genhead", "--fps")],
)
def test_numbers_are_finite(script: str, option: str, text: str) -> None:
    command = import_module(f"portrait4d.{script}").main
    result = CliRunner().invoke(command, [*REQUIRED.get(script, []), f"{option}={text}"])
    assert result.exit_code == 2 and f"Invalid value for '{option}'" in result.output


def test_numbers_are_read() -> None:
    assert FiniteFloat().convert("-1.5", None, None) == -1.5
    assert FiniteFloatRange(0, 2, min_open=True).convert("2", None, None) == 2
    for text in ("0", "3", "x"):
        with pytest.raises(click.BadParameter):
            FiniteFloatRange(0, 2, min_open=True).convert(text, None, None)
