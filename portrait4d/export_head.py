"""Export a reenacted head: a mesh for other programs, tri-planes that render by themselves, or an ONNX network."""

from pathlib import Path

import click

from portrait4d.option_types import FiniteFloat
from portrait4d.script_options import explain_errors

EXAMPLE = Path(__file__).parent / "examples" / "synthetic" / "portraits" / "00000"


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option(
    "--network",
    type=click.Path(path_type=Path),
    show_default="the bundled demo network",
    help="Network: .safetensors, or a published .pkl.",
)
@click.option(
    "--source",
    type=click.Path(path_type=Path),
    default=EXAMPLE,
    show_default="a bundled example",
    help="Whose head: prepared folder (its first portrait), or a picture in its align_images.",
)
@click.option(
    "--driving",
    type=click.Path(path_type=Path),
    show_default="the source itself",
    help="Whose expression and head pose, given like --source.",
)
@click.option(
    "--format",
    type=click.Choice(["glb", "ply", "planes", "onnx"]),
    show_default="as the suffix of --out says",
    help="planes are written to .safetensors.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help=".glb, .ply, .safetensors or .onnx file.")
@click.option("--upright", is_flag=True, help="Turn the head straight ahead.")
@click.option("--float16", is_flag=True, help="planes: store them in half the space.")
@click.option(
    "--motion",
    type=click.Choice(["stored", "pdfgc", "synthetic"]),
    default="stored",
    help="Stored motion vectors, or read from the pictures by PD-FGC's encoder, or by ours of the open head world.",
)
@click.option("--shape-res", type=click.IntRange(2, 1024), default=128, help="glb, ply: grid points per side.")
@click.option("--shape-level", type=FiniteFloat(), default=10.0, help="glb, ply: raw density of the surface.")
@click.option(
    "--render-size",
    type=click.IntRange(1, 1024),
    show_default="the network's own",
    help="planes, onnx: rays per side.",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to run.")
def main(**options: object) -> None:
    """Export a head of prepared portraits with the expression and head pose of another.

    glb and ply are coloured meshes (glb in metres). planes hold a head that portrait4d-render-planes shows from any
    side without the network. onnx is the network for one frame, with a trial frame's inputs beside it (.npz).
    """
    from portrait4d.config.exporting import ExportConfig
    from portrait4d.inference.export_job import run_export
    from portrait4d.models.pretrained.bundled import bundled_network

    with explain_errors():
        options["network"] = options["network"] or bundled_network("portrait4d")
        click.echo(run_export(ExportConfig(**options)))


if __name__ == "__main__":
    main()
