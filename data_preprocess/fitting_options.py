"""The flags that both fitting scripts share."""

from collections.abc import Callable
from pathlib import Path

import click

_ROTATION_HELP = (
    "Find the head's rotation from the landmarks before the published schedule, which keeps it; "
    "with --init neutral also its identity, expression, jaw and gaze."
)
_INIT_HELP = (
    "Heads to start from: bfm2flame_params of run_convert.py, bfm2flame_params_simplified of bfm2flame_simplified.py, "
    "or the mean head (use it with --optimise-rotation)."
)


def fitting_options(batch: int, batch_help: str) -> Callable[[Callable], Callable]:
    """Return the decorator that adds the flags, with the script's own default of --batch."""

    def check_batch(_context: click.Context, _parameter: click.Parameter, value: int) -> int:
        if value == 0 or (value < 0 and batch > 0):
            raise click.BadParameter(f"expected 1 or more{'' if batch > 0 else ', or -1'}, got {value}")
        return value

    options = (
        click.option("--data_dir", "--data-dir", type=click.Path(path_type=Path), default="", help="Input folder."),
        click.option(
            "--save_dir",
            "--save-dir",
            type=click.Path(path_type=Path),
            default=None,
            show_default="DATA_DIR",
            help="Output folder.",
        ),
        click.option("--batchsize", "--batch", "batch", type=int, default=batch, callback=check_batch, help=batch_help),
        click.option(
            "--init", type=click.Choice(["bfm2flame", "simplified", "neutral"]), default="bfm2flame", help=_INIT_HELP
        ),
        click.option("--optimise-rotation", "--optimize-rotation", is_flag=True, help=_ROTATION_HELP),
        click.option("--head", type=click.Choice(["flame", "synthetic"]), default="flame", help="Head model to fit."),
        click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to run."),
        click.option(
            "--steps",
            type=(click.IntRange(0), click.IntRange(0)),
            default=(1500, 3000),
            help="Steps of the schedule's two stages: translation; identity, expression, gaze and translation.",
        ),
        click.option("--resume", is_flag=True, help="Keep results that are there already; a clip counts as a whole."),
        click.option("--visualize", is_flag=True, help="Also write previews: flame_optim_uvs, flame_optim_visuals."),
    )

    def decorate(command: Callable) -> Callable:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate
