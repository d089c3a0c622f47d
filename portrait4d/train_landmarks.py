"""Train the compact landmark network of the open head world."""

from pathlib import Path

import click

from portrait4d.script_options import run_training, training_options


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@training_options("landmarks-synthetic.yaml", "./training-runs-landmarks")
def main(cfg: Path, overrides: tuple[str, ...], **options: object) -> None:
    """Train the compact landmark network on databases of the open head world.

    OVERRIDES are dotted settings, such as data.path=FOLDER data.held_out=FOLDER run.kimg=100. Writes OUTDIR/NNNNN-NAME
    with log.txt, stats.jsonl, TensorBoard events, views, networks and states; the same command goes on with a run that
    was interrupted.
    """
    from portrait4d.config.landmark_training import LandmarkTraining

    module = "portrait4d.training.landmark_task"
    run_training(LandmarkTraining, module, "build_landmark_task", cfg, overrides, options)


if __name__ == "__main__":
    main()
