"""Train Portrait4D-v2 on video clips."""

from pathlib import Path

import click

from portrait4d.script_options import run_training, training_options


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@training_options("portrait4d-v2-vfhq512.yaml", "./training-runs-portrait4d-v2")
def main(cfg: Path, overrides: tuple[str, ...], **options: object) -> None:
    """Train the one-shot reconstructor on a database of clips, with pseudo views of a frozen static model.

    OVERRIDES are dotted settings, such as data.path=FOLDER pseudo.network=FILE start.weights=FILE run.batch=16. Writes
    OUTDIR/NNNNN-NAME with log.txt, stats.jsonl, TensorBoard events, picture grids, networks and states; the same
    command goes on with a run that was interrupted.
    """
    from portrait4d.config.recon_training import ReconV2Training

    run_training(ReconV2Training, "portrait4d.training.recon_v2_task", "build_recon_v2_task", cfg, overrides, options)


if __name__ == "__main__":
    main()
