"""Show what the package does: reenact bundled persons, turn one around, make a page of it."""

from pathlib import Path

import click


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option("--outdir", type=click.Path(path_type=Path), default="demo", help="Where the page and its films go.")
@click.option(
    "--network",
    type=click.Path(path_type=Path),
    default=None,
    show_default="the bundled one",
    help="Reconstructor of the open head world (.safetensors).",
)
@click.option(
    "--genhead",
    type=click.Path(path_type=Path),
    default=None,
    show_default="the bundled one",
    help="GenHead of the open head world (.safetensors).",
)
@click.option(
    "--frames", type=click.IntRange(1), default=None, show_default="all", help="Of each film, at most: a quick look."
)
@click.option(
    "--picture", type=click.Path(path_type=Path), default=None, help="Also write an overview to this .jpg file."
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to run.")
def main(**options: object) -> None:
    """Drive bundled persons by bundled clips, turn one around, and write a page that shows it beside the truth."""
    from portrait4d.config.demo import DemoConfig
    from portrait4d.inference.demo_job import run_demo
    from portrait4d.script_options import run_job

    config = DemoConfig(**options)
    run_job(lambda: run_demo(config), config.outdir)


if __name__ == "__main__":
    main()
