"""Encode the motion of prepared portraits with the PD-FGC encoder."""

import sys
from pathlib import Path

import click


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option(
    "--input_dir",
    "--input-dir",
    type=click.Path(path_type=Path),
    required=True,
    help="Prepared folder (align_images, 3dldmks_align), or a folder with such folders below.",
)
@click.option(
    "--save_dir",
    "--save-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    show_default="the input folder",
    help="motion_feats is written here.",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to run.")
@click.option("--batch", type=click.IntRange(1), default=32, help="Pictures at once.")
@click.option("--workers", type=click.IntRange(0), default=2, help="Threads that read.")
@click.option("--resume", is_flag=True, help="Keep what is there already, which is done anyway.")
@click.option("--overwrite", is_flag=True, help="Do again what is there already.")
def main(resume: bool, **options: object) -> None:
    """Write motion_feats/NAME.npy, 548 numbers, for each picture of align_images.

    Pictures that cannot be used are named with the reason, the others are done, and the exit status is 1. The same
    command goes on with a killed run.
    """
    if resume and options["overwrite"]:
        raise click.UsageError("--resume and --overwrite: expected one of them")
    from data_preprocess.motion_job import MotionConfig, extract_motion
    from portrait4d.files.errors import UserError

    try:
        report = extract_motion(MotionConfig(**options))
    except UserError as error:
        raise click.ClickException(str(error)) from None
    click.echo(report.summary())
    if report.failures:
        sys.exit(1)


if __name__ == "__main__":
    main()
