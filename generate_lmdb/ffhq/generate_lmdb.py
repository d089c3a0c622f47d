"""Pack prepared still portraits (FFHQ) into an LMDB database or tar shards."""

import sys
from pathlib import Path

import click

PUBLISHED_TABLE = Path(__file__).parent / "ffhq_rebalance.json"


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option("--data_dir", "--data-dir", type=click.Path(path_type=Path), default="", help="Prepared folders.")
@click.option(
    "--output_dir",
    "--output-dir",
    "--save_dir",
    "output_dir",
    type=click.Path(path_type=Path),
    default="../../portrait4d/data/",
    help="Where FFHQ_<resolution>_<count> goes.",
)
@click.option("--resolution", type=click.IntRange(8), default=512, help="Side of all pictures in pixels.")
@click.option(
    "--max_len", "--max-len", "--limit", "max_len", type=int, default=-1, help="Records at most, repetitions counted."
)
@click.option(
    "--rebalance",
    metavar="PATH|auto|none",
    default=None,
    show_default="ffhq_rebalance.json beside this script if it is there, else none",
    help="How often each picture comes: a table, by head yaw, once.",
)
@click.option("--workers", type=click.IntRange(0), default=2, help="Threads that read and check.")
@click.option("--resume", is_flag=True, help="Go on with an unfinished run.")
@click.option("--validate", is_flag=True, help="Decode every picture and check every label before packing.")
@click.option("--skip-bad", "--skip_bad", is_flag=True, help="Exit with 0 although bad items were skipped.")
@click.option(
    "--format", "container", type=click.Choice(["lmdb", "shards"]), default="lmdb", help="Database or tar shards."
)
@click.option("--commit-every", type=click.IntRange(1), default=200, help="Records per commit of a database.")
@click.option("--shard-mb", type=click.IntRange(1), default=1024, help="Size of a tar shard in MiB.")
def main(rebalance: str | None, skip_bad: bool, **options: object) -> None:
    """Pack prepared still portraits: align_images, segs, flame_optim_params, motion_feats in each folder.

    Portraits without motion vector are left out, as in the reference; bad ones (no mask, wrong size, NaN) are skipped,
    listed, and make the exit status 1.
    """
    from portrait4d.data.pack_folders import PackConfig, pack_stills
    from portrait4d.files.errors import UserError

    if rebalance is None:
        rebalance = str(PUBLISHED_TABLE) if PUBLISHED_TABLE.is_file() else "none"
    click.echo(f"rebalancing: {rebalance}")
    try:
        report = pack_stills(PackConfig(rebalance=rebalance, **options))
    except UserError as error:
        raise click.ClickException(str(error)) from None
    click.echo(report.summary())
    if report.bad and not skip_bad:
        sys.exit(1)


if __name__ == "__main__":
    main()
