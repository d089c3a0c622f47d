"""Options that several scripts share, so that they mean the same everywhere."""

from collections.abc import Callable

import click

Decorator = Callable[[Callable], Callable]

_MESHES = (
    click.option("--shape-res", type=click.IntRange(2, 1024), default=128, help="Grid points per side for meshes."),
    click.option("--shape-level", type=float, default=25.0, help="Raw density of the mesh's surface."),
    click.option(
        "--shape-format",
        type=click.Choice(["ply", "obj", "glb", ".ply", ".obj", ".glb"]),
        metavar="[ply|obj|glb]",
        callback=lambda _context, _parameter, value: value.removeprefix("."),
        default="ply",
        help="Mesh format.",
    ),
)
_MACHINE = (
    click.option(
        "--chunk", type=click.IntRange(1), default=None, help="Rays rendered at once; default: chosen for the device."
    ),
    click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to run."),
    click.option(
        "--dtype",
        type=click.Choice(["float32", "bfloat16", "float16"]),
        default="float32",
        help="Precision of the networks.",
    ),
    click.option("--seed", type=int, default=0, help="Seed of --random-sampling."),
    click.option(
        "--random-sampling", is_flag=True, help="Draw sample positions along rays (default: fixed, free of flicker)."
    ),
)


_WITHOUT_EFFECT = tuple(
    click.option(
        name, type=kind, default=None, expose_value=False, help="Accepted for old command lines, without effect."
    )
    for name, kind in (("--class", int), ("--reload_modules", bool))
)


def reference_options(command: Callable) -> Callable:
    """Let a click command accept the reference's options that mean nothing here."""
    return _add(_WITHOUT_EFFECT, command)


def mesh_options(command: Callable) -> Callable:
    """Add --shape-res, --shape-level and --shape-format to a click command."""
    return _add(_MESHES, command)


def machine_options(command: Callable) -> Callable:
    """Add --chunk, --device, --dtype, --seed and --random-sampling to a click command."""
    return _add(_MACHINE, command)


def field_of_view_option(default_is: str) -> Decorator:
    """Return the option --fov-deg, whose help says what the default is."""
    kind = click.FloatRange(0, 180, min_open=True, max_open=True)
    return click.option("--fov-deg", type=kind, default=None, help=f"Field of view; default: {default_is}.")


def _add(options: tuple[Decorator, ...], command: Callable) -> Callable:
    for option in reversed(options):
        command = option(command)
    return command
