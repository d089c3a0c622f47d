"""Write the head masks of prepared portraits with a face-parsing network."""

from pathlib import Path

import click

from portrait4d.script_options import rerun_options, run_job


def _split(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(value.split(","))


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option(
    "--input_dir",
    "--input-dir",
    type=click.Path(path_type=Path),
    required=True,
    help="Prepared folder (align_images), or a folder with such folders below.",
)
@click.option(
    "--save_dir",
    "--save-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    show_default="the input folder",
    help="segs is written here.",
)
@click.option(
    "--checkpoint",
    metavar="NAME_OR_FOLDER",
    required=True,
    help="Semantic-segmentation network for the transformers library: a folder, or a name on the Hugging Face hub.",
)
@click.option("--download", is_flag=True, help="Fetch the checkpoint if it is not on this machine.")
@click.option(
    "--head-labels",
    metavar="LABEL,LABEL...",
    callback=_split,
    default=None,
    show_default="all but --background-labels",
    help="Labels of the network, names or numbers, that are the head.",
)
@click.option(
    "--background-labels",
    metavar="LABEL,LABEL...",
    callback=_split,
    default="background",
    help="Labels that are not the head, as background,cloth.",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to run.")
@click.option("--batch", type=click.IntRange(1), default=8, help="Pictures at once.")
@click.option("--workers", type=click.IntRange(0), default=2, help="Threads that read.")
@rerun_options
def main(**options: object) -> None:
    """Write segs/NAME, a mask (head white, background black), for each picture of align_images.

    Needs the transformers library. The licence of the checkpoint is shown first; it is yours to keep to. Pictures that
    cannot be used are named with the reason, the others are done, and the exit status is 1. The same command goes on
    with a killed run.
    """
    from data_preprocess.segmentation_job import SegmentationConfig, segment_faces

    run_job(lambda: segment_faces(SegmentationConfig(**options)))


if __name__ == "__main__":
    main()
