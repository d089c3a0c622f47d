"""Measure the compact motion encoder on faces of the open head world whose motions are known."""

from pathlib import Path

import click

from portrait4d.script_options import explain_errors


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option(
    "--network", type=click.Path(path_type=Path), default=None, help="Motion encoder: .safetensors; default: ours."
)
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Database of generate_lmdb.")
@click.option("--clips", is_flag=True, help="It holds clips, not stills; every frame is measured.")
@click.option("--size", type=click.IntRange(8), default=None, help="Reduce pictures to so many pixels a side first.")
def main(network: Path | None, data: Path, clips: bool, size: int | None) -> None:
    """Measure the compact motion encoder on held-out faces of the open head world.

    Prints for each input of motion vectors (expressions, gaze / 0.3 rad, jaw / 0.2 rad) the mean absolute error, that
    of always answering the mean, the truths' standard deviation, R^2 and correlation; then for the vector's parts the
    error relative to always answering the mean.
    """
    from portrait4d.models.checkpoints import load_compact_motion_encoder
    from portrait4d.training.head_choice import load_head
    from portrait4d.training.motion_examples import read_clips, read_stills
    from portrait4d.training.motion_measures import format_errors, measure_encoder

    with explain_errors():
        encoder = load_compact_motion_encoder(network)
        read = read_clips if clips else read_stills
        examples = read(data, load_head("synthetic"), encoder.config.picture_size)
    click.echo(f"{len(examples)} faces of {data}")
    click.echo(format_errors(measure_encoder(encoder, examples, size)))


if __name__ == "__main__":
    main()
