"""Train GenHead, the generator of animatable heads."""

from pathlib import Path

import click

from portrait4d.script_options import run_training, training_options


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@training_options("genhead-ffhq512.yaml", "./training-runs-genhead")
def main(cfg: Path, overrides: tuple[str, ...], **options: object) -> None:
    """Train GenHead on a database of portraits.

    OVERRIDES are dotted settings, such as data.path=FOLDER run.batch=16 optim.generator_lr=1e-3. Writes
    OUTDIR/NNNNN-NAME with log.txt, stats.jsonl, TensorBoard events, picture grids, networks and states; the same
    command goes on with a run that was interrupted.
    """
    from portrait4d.config.training import GenHeadTraining

    run_training(GenHeadTraining, "portrait4d.training.genhead_task", "build_genhead_task", cfg, overrides, options)


if __name__ == "__main__":
    main()
