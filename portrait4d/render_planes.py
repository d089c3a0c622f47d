"""Render pictures and films of a head that export_head.py wrote as tri-planes."""

from pathlib import Path

import click

from portrait4d.option_types import FiniteFloat, FiniteFloatRange
from portrait4d.script_options import explain_errors, field_of_view_option


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.argument("planes", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help=".mp4 film, or .png or .jpg picture.")
@click.option(
    "--camera", default="orbit", metavar="[orbit|PATH.json]", help="Film: once around, or along a path of keyframes."
)
@click.option(
    "--yaw", "yaw_deg", type=FiniteFloat(), default=30.0, help="Degrees to the side (film: amplitude of the orbit)."
)
@click.option(
    "--pitch", "pitch_deg", type=FiniteFloat(), default=0.0, help="Degrees up (film: amplitude of the orbit)."
)
@click.option(
    "--seconds",
    type=FiniteFloatRange(0, 3600, min_open=True),
    show_default="4, or to the path's end",
    help="Length of the film.",
)
@click.option("--fps", type=FiniteFloatRange(1, 240), default=25.0, help="Frames per second.")
@field_of_view_option("that of the driving portrait")
@click.option(
    "--render-size", type=click.IntRange(1, 1024), show_default="as the head was exported", help="Rays per side."
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to run.")
def main(**options: object) -> None:
    """Render the head in the file PLANES (.safetensors of portrait4d-export) from any side."""
    from portrait4d.config.exporting import RenderPlanesConfig
    from portrait4d.inference.plane_films import render_planes

    config = RenderPlanesConfig(**options)
    with explain_errors():
        count = render_planes(config)
    click.echo(f"{config.out}: {count} frame{'s' if count > 1 else ''}")


if __name__ == "__main__":
    main()
