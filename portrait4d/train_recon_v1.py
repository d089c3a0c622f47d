"""Train Portrait4D v1, or its static variant, on synthetic heads with known truth."""

from pathlib import Path

import click

from portrait4d.script_options import run_training, training_options


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@training_options("portrait4d-genhead512.yaml", "./training-runs-portrait4d")
def main(cfg: Path, overrides: tuple[str, ...], **options: object) -> None:
    """Train the one-shot reconstructor on heads that a frozen GenHead, or the open head world, makes on the fly.

    OVERRIDES are dotted settings, such as supervision.genhead=FILE run.batch=16 static=true. Writes OUTDIR/NNNNN-NAME
    with log.txt, stats.jsonl, TensorBoard events, picture grids, networks and states; the same command goes on with a
    run that was interrupted.
    """
    from portrait4d.config.recon_training import ReconV1Training

    run_training(ReconV1Training, "portrait4d.training.recon_v1_task", "build_recon_v1_task", cfg, overrides, options)


if __name__ == "__main__":
    main()
