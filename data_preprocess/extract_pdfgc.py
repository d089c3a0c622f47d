"""Encode the motion of prepared portraits with the PD-FGC encoder, or with ours of the open head world."""

from pathlib import Path

import click

from portrait4d.script_options import rerun_options, run_job


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
@click.option(
    "--encoder",
    type=click.Choice(["pdfgc", "synthetic"]),
    default="pdfgc",
    help="PD-FGC's, or ours, which comes with the package and reads pictures of the open head world.",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to run.")
@click.option("--batch", type=click.IntRange(1), default=32, help="Pictures at once.")
@click.option("--workers", type=click.IntRange(0), default=2, help="Threads that read.")
@rerun_options
def main(**options: object) -> None:
    """Write motion_feats/NAME.npy, 548 numbers, for each picture of align_images.

    Pictures that cannot be used are named with the reason, the others are done, and the exit status is 1. The same
    command goes on with a killed run.
    """
    from data_preprocess.motion_job import MotionConfig, extract_motion

    run_job(lambda: extract_motion(MotionConfig(**options)))


if __name__ == "__main__":
    main()
