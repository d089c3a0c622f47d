"""Make up heads with GenHead and turn them before the camera."""

from pathlib import Path

import click

from portrait4d.option_types import FiniteFloat, FiniteFloatRange
from portrait4d.script_options import field_of_view_option, machine_options, mesh_options, reference_options, run_job


def parse_seeds(context: click.Context | None, parameter: click.Parameter | None, text: str) -> tuple[int, ...]:
    """Read a comma list of numbers and ranges a-b, both ends included: "0,2,5-7" gives (0, 2, 5, 6, 7).

    Raises:
        click.BadParameter: for anything else.
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise click.BadParameter(f"expected numbers and ranges such as 0,2,5-7, got {text!r}")
        if dash and int(last) < int(first):
            raise click.BadParameter(f"expected ranges from low to high, got {part.strip()!r}")
        if max(int(first), int(last or 0)) >= 2**32:
            raise click.BadParameter(f"expected seeds below 2^32, got {part.strip()!r}")
        seeds += range(int(first), int(last or first) + 1)
    return tuple(dict.fromkeys(seeds))


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option(
    "--network",
    type=click.Path(path_type=Path),
    default=None,
    show_default="the bundled demo network",
    help="Network: .safetensors, or a published .pkl.",
)
@click.option("--seeds", callback=parse_seeds, default="0-10", help="Heads to make, such as 0,2,5-7.")
@click.option("--trunc", "trunc", type=FiniteFloat(), default=0.7, help="Truncation psi: 1 varied, 0 the average head.")
@click.option(
    "--trunc-cutoff", type=click.IntRange(0), default=14, help="Styles that are truncated, the coarsest first."
)
@click.option(
    "--outdir", type=click.Path(path_type=Path), default="./experiments/genhead-syn", help="Where results go."
)
@click.option(
    "--params",
    type=click.Path(path_type=Path),
    default=None,
    help="Folder with ffhq_all_shape_n_c_params.npy and ffhq_all_motion_params.npy, row = seed; "
    "default: a neutral identity whose expression, gaze, jaw and neck move.",
)
@click.option("--frames", type=click.IntRange(1), default=40, help="Pictures of each head, one turn of the neck.")
@click.option("--shapes", type=bool, default=False, help="Also write meshes.")
@mesh_options
@click.option(
    "--render_size",
    "--render-size",
    type=click.IntRange(1, 1024),
    default=None,
    help="Rays per side; default: the network's own (64 in the published one).",
)
@field_of_view_option("that of the parameters (12 degrees)")
@machine_options
@click.option("--grid", is_flag=True, help="Also write one picture of all heads.")
@click.option("--video", is_flag=True, help="Also write an mp4 of each head.")
@click.option("--fps", type=FiniteFloatRange(1, 240), default=25.0, help="Frames per second of --video.")
@click.option("--resume", is_flag=True, help="Keep pictures that are there already.")
@reference_options
def main(**options: object) -> None:
    """Make up heads from seeds and turn them before a frontal camera.

    Writes <outdir>/<seed>_<frame>.png; meshes, films and a grid on request.
    """
    from portrait4d.config.experiments import SampleHeadsConfig
    from portrait4d.inference.sample_heads_job import Report, run_sampling
    from portrait4d.models.pretrained.bundled import bundled_network

    def job() -> Report:
        network = options["network"] or bundled_network("genhead")
        return run_sampling(SampleHeadsConfig(**(options | {"network": network})))

    run_job(job, options["outdir"])


if __name__ == "__main__":
    main()
