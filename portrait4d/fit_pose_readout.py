"""Fit the read-out of yaw and pitch that judges results in calc_metrics_recon.py."""

from pathlib import Path

import click

from portrait4d.option_types import FiniteFloatRange
from portrait4d.script_options import explain_errors


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    help="Set of write_synthetic_portraits; may be given several times.",
)
@click.option("--limit", type=click.IntRange(1), default=1200, help="The first so many portraits of each set.")
@click.option("--held-out", type=click.Path(path_type=Path), required=True, help="Set to measure the result on.")
@click.option("--ridge", type=FiniteFloatRange(0, min_open=True), default=10.0, help="Weight of the coefficients.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="File to write, .safetensors.")
def main(data: tuple[Path, ...], limit: int, held_out: Path, ridge: float, out: Path) -> None:
    """Fit yaw and pitch to the features of the compact motion encoder.

    Takes every picture as it is, and reduced to 64 pixels, each also mirrored. Prints the mean absolute error in
    degrees and R^2 on held-out persons, at both sizes.
    """
    from portrait4d.inference.pose_readout import fit_pose_readout, read_pose_examples, save_pose_readout
    from portrait4d.models.checkpoints import load_compact_motion_encoder

    encoder = load_compact_motion_encoder()
    with explain_errors():
        examples = [read_pose_examples(encoder, root, limit, size) for root in data for size in (None, 64)]
        readout = fit_pose_readout(examples, ridge)
        for size in (None, 64):
            held = read_pose_examples(encoder, held_out, None, size, mirror=False)
            error = readout(held.features) - held.angles_deg
            explained = 1 - error.square().mean(dim=0) / held.angles_deg.var(dim=0, unbiased=False)
            for name, mean, share in zip(("yaw", "pitch"), error.abs().mean(dim=0), explained, strict=True):
                click.echo(f"{name}, {size or 'full'} pixels: error {mean:.2f} deg, R^2 {share:.3f}")
    save_pose_readout(out, readout)


if __name__ == "__main__":
    main()
