"""Reenact source portraits with driving portraits: the head of the one, the motion of the other."""

from pathlib import Path

import click

from portrait4d.option_types import FiniteFloat, FiniteFloatRange
from portrait4d.script_options import field_of_view_option, machine_options, mesh_options, reference_options, run_job

EXAMPLES = Path(__file__).parent / "examples" / "synthetic"


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option(
    "--network",
    type=click.Path(path_type=Path),
    default=None,
    show_default="the bundled demo network",
    help="Network: .safetensors, or a published .pkl.",
)
@click.option(
    "--srcdir",
    type=click.Path(path_type=Path),
    default=EXAMPLES / "portraits" / "00000",
    show_default="bundled portraits",
    help="Prepared folder of the source portraits.",
)
@click.option(
    "--tardir",
    type=click.Path(path_type=Path),
    default=EXAMPLES / "driving" / "clip-00001",
    show_default="a bundled clip",
    help="Prepared folder of the driving portraits.",
)
@click.option(
    "--outdir", type=click.Path(path_type=Path), default="experiments/portrait4d-reenacted", help="Where results go."
)
@click.option(
    "--use_neck",
    "--use-neck",
    type=bool,
    default=True,
    help="Turn the neck before a frontal camera; 0: still neck, moving camera.",
)
@click.option(
    "--use_simplified",
    "--use-simplified",
    type=bool,
    default=False,
    help="Read bfm2flame_params_simplified instead of flame_optim_params.",
)
@click.option(
    "--motion",
    type=click.Choice(["stored", "pdfgc", "synthetic"]),
    default=None,
    show_default="stored; with the bundled network synthetic",
    help="Stored vectors (missing ones: PD-FGC), or all read from the pictures by PD-FGC's encoder, or by ours of the "
    "open head world.",
)
@click.option("--shape", "--shapes", "shape", type=bool, default=False, help="Also write meshes.")
@mesh_options
@click.option(
    "--render_size",
    "--render-size",
    type=click.IntRange(1, 1024),
    default=None,
    show_default="the network's own, 128 in published ones",
    help="Rays per side.",
)
@field_of_view_option("the driver's intrinsics")
@machine_options
@click.option(
    "--pairs",
    type=click.Choice(["all", "zip"]),
    default="all",
    help="Every source with every driver, or first with first ...",
)
@click.option("--grid", is_flag=True, help="Also write one picture of all results.")
@click.option(
    "--camera",
    type=click.Choice(["driver", "frontal", "orbit"]),
    default="driver",
    help="Head pose of the driver, upright head, or an orbit.",
)
@click.option(
    "--yaw",
    "yaw_deg",
    type=FiniteFloat(),
    default=30.0,
    help="Orbit: degrees to the side (amplitude over several views).",
)
@click.option(
    "--pitch", "pitch_deg", type=FiniteFloat(), default=0.0, help="Orbit: degrees up (amplitude over several views)."
)
@click.option("--orbit-frames", type=click.IntRange(1), default=1, help="Orbit: views of each driving portrait.")
@click.option("--video", is_flag=True, help="Also write an mp4 of each source's results in order.")
@click.option("--fps", type=FiniteFloatRange(1, 240), default=25.0, help="Frames per second of --video.")
@click.option(
    "--source-cache/--no-source-cache", default=True, help="Encode each source once, or again for every frame."
)
@click.option("--resume", is_flag=True, help="Keep results that are there already.")
@reference_options
def main(**options: object) -> None:
    """Reenact source portraits with driving portraits.

    Reads prepared folders (align_images, 3dldmks_align, flame_optim_params, ...) and writes source | result | driver
    strips, single frames and results.jsonl; meshes, films and a grid on request.
    """
    from portrait4d.inference.reenact_defaults import complete_config
    from portrait4d.inference.reenact_job import run_reenactment

    run_job(lambda: run_reenactment(complete_config(options)), options["outdir"])


if __name__ == "__main__":
    main()
