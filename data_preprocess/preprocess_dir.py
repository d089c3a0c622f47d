"""Prepare pictures and films: find faces, cut them out, and write landmarks and face-model coefficients beside them."""

from pathlib import Path

import click

from portrait4d.script_options import rerun_options, run_job


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option(
    "--input_dir",
    "--input-dir",
    type=click.Path(path_type=Path),
    required=True,
    help="A picture, a film, or a folder of pictures, films and such folders.",
)
@click.option(
    "--save_dir",
    "--save-dir",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Prepared folder to write; the results of sub-folders and of films among other files go to sub-folders.",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to run.")
@click.option("--batch", type=click.IntRange(1), default=8, help="Pictures at once.")
@click.option(
    "--workers",
    type=click.IntRange(0),
    default=2,
    help="Threads that read, and as many that write; with --ray the number of Ray workers.",
)
@click.option(
    "--ray",
    "ray_address",
    is_flag=False,
    flag_value="local",
    default=None,
    show_default="not used",
    metavar="[ADDRESS]",
    help="Work on the machines of a Ray cluster that share this file system; without address on this one.",
)
@click.option(
    "--video/--no-video",
    "--is_video/--no-is_video",
    default=None,
    show_default="films are, pictures are not",
    help="Follow one face from picture to picture, or detect faces in each.",
)
@click.option("--smooth", is_flag=True, help="Let steady faces lie still, where they are followed.")
@click.option(
    "--face",
    type=click.Choice(["largest", "center", "all"]),
    default="largest",
    help="Which faces of a picture to keep; all: NAME_0, NAME_1, ..., best first.",
)
@click.option("--detector", type=click.Choice(["retinaface"]), default="retinaface", help="What finds faces.")
@click.option(
    "--format",
    "image_format",
    type=click.Choice(["png", "jpg"]),
    default="png",
    help="Of frames of films, and of pictures that are neither PNG nor JPEG; those keep their names.",
)
@rerun_options
@click.option(
    "--accept-unverified",
    is_flag=True,
    help="Open a TorchScript archive of the 68-point network although its sha256 is not the published one.",
)
def main(detector: str, ray_address: str | None, **options: object) -> None:
    """Prepare pictures and films.

    Writes align_images, 2dldmks_align, 3dldmks_align, bfm_params, bfm_vis (if the Basel Face Model is there) and
    crop_transforms, which tells how to paste a portrait back. Frames of films are named by their numbers, from 000000.
    Files that cannot be used are named with the reason, the others are done, and the exit status is 1. The same command
    goes on with a killed run.
    """
    from data_preprocess.pipeline import PreprocessConfig, run_preprocessing

    def run() -> object:
        config = PreprocessConfig(**options)
        if ray_address is None:
            return run_preprocessing(config)
        from data_preprocess.ray_job import run_on_ray

        return run_on_ray(config, ray_address)

    run_job(run)


if __name__ == "__main__":
    main()
