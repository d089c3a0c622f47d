"""Map Basel Face Model coefficients to frame labels by a small network: quick, no head model needed."""

from pathlib import Path

import click

from portrait4d.script_options import run_job


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option("--input_dir", "--input-dir", type=click.Path(path_type=Path), default="", help="Holds bfm_params.")
@click.option(
    "--save_dir",
    "--save-dir",
    type=click.Path(path_type=Path),
    default="",
    help="bfm2flame_params_simplified is written here.",
)
@click.option(
    "--use_mapper",
    "--use-mapper",
    type=bool,
    default=True,
    help="0: head pose only, of the mean head without expression.",
)
@click.option("--batch", type=click.IntRange(1), default=256, help="Faces at once.")
@click.option("--resume", is_flag=True, help="Keep results that are there already.")
def main(**options: object) -> None:
    """Write bfm2flame_params_simplified/NAME.npy for each bfm_params/NAME.npy.

    Bad files are named at the end, and make the exit status 1.
    """
    from data_preprocess.bfm_to_flame.convert_job import SimplifiedConfig, run_simplified

    run_job(lambda: run_simplified(SimplifiedConfig(**options)))


if __name__ == "__main__":
    main()
