"""Write data sets of the open head world: portraits or clips with exact labels, as prepared folders."""

from pathlib import Path

import click

from portrait4d.option_types import FiniteFloatRange
from portrait4d.script_options import explain_errors


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Root folder to write.")
@click.option(
    "--identities",
    type=click.IntRange(1, 70000),
    default=16,
    help="Persons; without --clips one portrait of each.",
)
@click.option(
    "--clips",
    type=click.IntRange(0, 100000),
    default=0,
    help="Clips, one folder each; clip i shows person i modulo --identities. 0: single portraits.",
)
@click.option("--frames", type=click.IntRange(1), default=50, help="Frames of a clip.")
@click.option("--fps", type=FiniteFloatRange(1, 240), default=25.0, help="Frames per second of clips.")
@click.option(
    "--views",
    type=click.IntRange(0, 99),
    default=0,
    help="Extra cameras of every portrait, in the sub-folder views; nothing else changes.",
)
@click.option("--resolution", type=click.IntRange(16, 1024), default=512, help="Pixels per side.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, help="Everything follows from it.")
@click.option("--workers", type=click.IntRange(1, 256), default=1, help="Processes.")
@click.option(
    "--truth",
    is_flag=True,
    help="Also write cross-identity ground truth to OUT/truth: each with the next one's motion.",
)
@click.option(
    "--format", "image_format", type=click.Choice(["png", "jpg"]), default="png", help="Of pictures and masks."
)
def main(**options: object) -> None:
    """Write portraits of the open head world with exact labels.

    Without --clips OUT/00000, OUT/01000, ... hold 1000 portraits each, as FFHQ's folders do; with --clips every clip
    has a folder, as in VFHQ. Each folder is a prepared folder: align_images, segs, 2dldmks_align, 3dldmks_align,
    flame_optim_params, bfm2flame_params_simplified, motion_feats. manifest.jsonl tells the exact parameters. A killed
    run goes on by the same command.
    """
    from portrait4d.synthetic_heads.portrait_sets import PortraitSetConfig, write_portrait_set

    with explain_errors():
        config = PortraitSetConfig(**options)
        report = write_portrait_set(config)
    click.echo(report.summary(config.out))


if __name__ == "__main__":
    main()
