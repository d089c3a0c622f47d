"""Fit the head model to the landmarks of pictures, each on its own."""

import click

from data_preprocess.fitting_options import fitting_options
from portrait4d.script_options import run_job


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@fitting_options(batch=100, batch_help="Pictures fitted together.")
def main(**options: object) -> None:
    """Write flame_optim_params/NAME.npy for each picture of align_images.

    Reads align_images and the heads to start from in SAVE_DIR, or else DATA_DIR; 2dldmks_align and 3dldmks_align in
    DATA_DIR. Bad pictures are named at the end, and make the exit status 1.
    """
    from data_preprocess.flame_fitting.fit_job import FitConfig, fit_pictures

    run_job(lambda: fit_pictures(FitConfig(**options)))


if __name__ == "__main__":
    main()
