"""Convert Basel Face Model coefficients to FLAME parameters by fitting meshes."""

from pathlib import Path

import click

from portrait4d.script_options import run_job


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option("--input_dir", "--input-dir", type=click.Path(path_type=Path), default="", help="Holds bfm_params.")
@click.option(
    "--save_dir", "--save-dir", type=click.Path(path_type=Path), default="", help="bfm2flame_params is written here."
)
@click.option(
    "--n_thread",
    "--n-thread",
    "processes",
    type=click.IntRange(1, 256),
    default=20,
    help="Processes; at most one per core.",
)
@click.option(
    "--instance_per_thread",
    "--instance-per-thread",
    "files_at_once",
    type=click.IntRange(1),
    default=1,
    help="Files that a process takes at a time. All files are converted, whatever this number is.",
)
@click.option("--head", type=click.Choice(["flame", "synthetic"]), default="flame", help="Head model to fit.")
@click.option("--resume", is_flag=True, help="Keep results that are there already.")
def main(**options: object) -> None:
    """Write bfm2flame_params/NAME.npy for each bfm_params/NAME.npy.

    Needs the Basel Face Model, the correspondence file BFM_to_FLAME_corr.npz, and FLAME. Bad files are named at the
    end, and make the exit status 1.
    """
    from data_preprocess.bfm_to_flame.convert_job import MeshConfig, run_mesh_transfer

    run_job(lambda: run_mesh_transfer(MeshConfig(**options)))


if __name__ == "__main__":
    main()
