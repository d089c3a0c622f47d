"""Fit the head model to the landmarks of clips: one identity for all frames of a clip."""

import click

from data_preprocess.fitting_options import fitting_options
from portrait4d.script_options import run_job


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@fitting_options(batch=-1, batch_help="Frames of a clip, the first ones; -1: all. They are fitted together.")
def main(**options: object) -> None:
    """Write CLIP/flame_optim_params/NAME.npy for each frame of each clip.

    A clip is a sub-folder of DATA_DIR with align_images, 2dldmks_align, 3dldmks_align and the heads to start from. Bad
    frames are left out, named at the end, and make the exit status 1.
    """
    from data_preprocess.flame_fitting.fit_job import FitConfig, fit_clips

    run_job(lambda: fit_clips(FitConfig(**options)))


if __name__ == "__main__":
    main()
