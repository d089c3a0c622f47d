"""Options that several scripts share, so that they mean the same everywhere."""

import functools
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from portrait4d.option_types import FiniteFloat, FiniteFloatRange

Decorator = Callable[[Callable], Callable]

_MESHES = (
    click.option("--shape-res", type=click.IntRange(2, 1024), default=128, help="Grid points per side for meshes."),
    click.option("--shape-level", type=FiniteFloat(), default=25.0, help="Raw density of the mesh's surface."),
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


_RERUN = (
    click.option("--resume", is_flag=True, help="Keep what is there already, which is done anyway."),
    click.option("--overwrite", is_flag=True, help="Do again what is there already."),
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
    kind = FiniteFloatRange(0, 180, min_open=True, max_open=True)
    return click.option("--fov-deg", type=kind, default=None, help=f"Field of view; default: {default_is}.")


def rerun_options(command: Callable) -> Callable:
    """Add --resume and --overwrite to a click command, which gets `overwrite`; both at once are refused."""

    @functools.wraps(command)
    def checked(resume: bool, **options: object) -> object:
        if resume and options["overwrite"]:
            raise click.UsageError("--resume and --overwrite: expected one of them")
        return command(**options)

    return _add(_RERUN, checked)


@contextmanager
def explain_errors() -> Iterator[None]:
    """Turn what the user can put right within the block into one line on the terminal and exit status 1.

    Raises:
        click.ClickException: a `UserError`, or an error of the system that names a file.
    """
    from portrait4d.files.errors import UserError

    try:
        yield
    except UserError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        if error.filename is None:
            raise
        raise click.ClickException(f"{error.filename}: cannot be read or written ({error.strerror})") from None


def run_job(job: Callable, *where: object) -> None:
    """Run a job over many files, say what it did, and exit with 1 if something could not be done.

    Args:
        job: returns a report with `failures` and `summary(*where)`.
        where: what the summary is told.

    Raises:
        click.ClickException: nothing could be done at all.
    """
    with explain_errors():
        report = job()
    click.echo(report.summary(*where))
    if report.failures:
        sys.exit(1)


def training_options(default_config: str, default_outdir: str) -> Decorator:
    """Return what every training script takes: --cfg, OVERRIDES, --outdir, --resume, --desc, --dry-run, --quiet."""
    options = (
        click.option(
            "--cfg",
            type=click.Path(path_type=Path),
            default=default_config,
            help="Configuration; a name without such a file is looked up in configs/.",
        ),
        click.option("--outdir", type=click.Path(path_type=Path), default=default_outdir, help="Parent of runs."),
        click.option(
            "--resume",
            metavar="auto|new|PATH",
            default="auto",
            help="auto: go on with the newest run of this name; new: start another; PATH: a run directory to go on "
            "with, or weights to start from (.pkl, network or state).",
        ),
        click.option("--desc", default=None, help="Added to the run's name."),
        click.option("--dry-run", "--dry_run", is_flag=True, help="Print the resolved configuration and stop."),
        click.option("--quiet", is_flag=True, help="No progress on the terminal; log.txt has it."),
        click.argument("overrides", nargs=-1),
    )
    return lambda command: _add(options, command)


def run_training(
    kind: type, module: str, build: str, cfg: Path, overrides: tuple[str, ...], options: dict[str, object]
) -> None:
    """Check a training's configuration and run it; see `training_options`.

    Args:
        kind: dataclass of the configuration.
        module, build: where its task is built; imported when the configuration is known to be good.
        cfg, overrides, options: as given on the command line.
    """
    from portrait4d.config.load import load_config
    from portrait4d.files.errors import UserError

    resume = str(options["resume"])
    is_weights = resume not in ("auto", "new") and Path(resume).is_file()
    if is_weights:
        overrides, resume = (*overrides, f"start.weights={json.dumps(resume)}"), "auto"
    try:
        config = load_config(kind, cfg, overrides)
        if options["dry_run"]:
            from portrait4d.config.load import plain_config

            click.echo(json.dumps(plain_config(config), indent=2))
            return
        from portrait4d.training.launch import Launch, describe_run, launch

        builder = getattr(importlib.import_module(module), build)
        name = describe_run(cfg, config, options["desc"])
        folder = launch(Launch(config, builder, name, options["outdir"], resume, not options["quiet"]))
    except UserError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"run directory: {folder}")


def _add(options: tuple[Decorator, ...], command: Callable) -> Callable:
    for option in reversed(options):
        command = option(command)
    return command
