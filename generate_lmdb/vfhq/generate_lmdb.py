"""Pack prepared video clips (VFHQ) into an LMDB database or tar shards."""

import sys
from pathlib import Path

import click


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option("--data_dir", "--data-dir", type=click.Path(path_type=Path), default="", help="Prepared clips.")
@click.option(
    "--output_dir",
    "--output-dir",
    "--save_dir",
    "output_dir",
    type=click.Path(path_type=Path),
    default="../../portrait4d/data/",
    help="Where VFHQ_sub<frames>_<resolution>_<count> goes.",
)
@click.option("--resolution", type=click.IntRange(8), default=512, help="Side of all pictures in pixels.")
@click.option("--max_len", "--max-len", "--limit", "max_len", type=int, default=-1, help="Clips at most.")
@click.option("--frames", type=click.IntRange(1), default=50, help="Frames of each clip.")
@click.option("--allow-short", "--allow_short", is_flag=True, help="Also pack clips that have fewer frames.")
@click.option("--workers", type=click.IntRange(0), default=2, help="Threads that read and check.")
@click.option("--resume", is_flag=True, help="Go on with an unfinished run.")
@click.option("--validate", is_flag=True, help="Check every label before packing.")
@click.option("--skip-bad", "--skip_bad", is_flag=True, help="Exit with 0 although bad clips were skipped.")
@click.option(
    "--format", "container", type=click.Choice(["lmdb", "shards"]), default="lmdb", help="Database or tar shards."
)
@click.option("--commit-every", type=click.IntRange(1), default=200, help="Records per commit of a database.")
@click.option("--shard-mb", type=click.IntRange(1), default=1024, help="Size of a tar shard in MiB.")
def main(skip_bad: bool, **options: object) -> None:
    """Pack prepared clips: align_images, segs, flame_optim_params, motion_feats in each clip's folder.

    Clips with too few frames are left out, as in the reference; bad ones (no mask, wrong size, NaN) are skipped,
    listed, and make the exit status 1.
    """
    from portrait4d.data.pack_folders import PackConfig, pack_clips
    from portrait4d.files.errors import UserError

    try:
        report = pack_clips(PackConfig(**options))
    except UserError as error:
        raise click.ClickException(str(error)) from None
    click.echo(report.summary())
    if report.bad and not skip_bad:
        sys.exit(1)


if __name__ == "__main__":
    main()
