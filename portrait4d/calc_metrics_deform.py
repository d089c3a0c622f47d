"""Measure GenHead's heads against a database: FID, KID, precision and recall, inception score."""

from pathlib import Path

import click

from portrait4d.script_options import explain_errors


def parse_metrics(context: click.Context | None, parameter: click.Parameter | None, text: str) -> tuple[str, ...]:
    """Read a comma list of names; "none" gives no name."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    return () if names == ("none",) else names


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option(
    "--network",
    type=click.Path(path_type=Path),
    default="./pretrained_models/genhead-ffhq512.pkl",
    help="GenHead: .safetensors, or a published .pkl.",
)
@click.option(
    "--metrics",
    callback=parse_metrics,
    default="fid50k_full",
    help="Comma list, or none: fid50k_full fid50k fid1k kid50k_full kid50k pr50k3_full pr50k3 is50k; "
    "other counts likewise, such as fid2k_full (all reals, 2000 fakes).",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default="./data/FFHQ_512_50/",
    help="The reals: database, prepared folder, or (with --fakes) folder of pictures.",
)
@click.option(
    "--fakes", type=click.Path(path_type=Path), default=None, help="Measure the pictures of this folder instead."
)
@click.option(
    "--detector",
    default="inception",
    help="inception, a file (its state dict or a TorchScript archive), or pixels16: needs no file, "
    "not comparable with published values.",
)
@click.option("--accept-unverified", is_flag=True, help="Take a detector file whose sha256 is not known.")
@click.option("--mirror", type=bool, default=False, help="Mirrored copies of the reals too, where the metric lets it.")
@click.option("--floor", is_flag=True, help="Also measure one random half of the reals against the other.")
@click.option("--gpus", type=click.IntRange(1), default=1, help="Processes, each on its GPU if there are any.")
@click.option(
    "--render_size",
    "--render-size",
    type=click.IntRange(1, 1024),
    default=None,
    help="Rays per side; default: the network's own (64 in the published one).",
)
@click.option("--chunk", type=click.IntRange(1), default=None, help="Rays at once; default: chosen for the device.")
@click.option("--seed", type=int, default=0, help="Of everything that is random.")
@click.option("--batch", type=click.IntRange(1), default=64, help="Pictures per batch of the detector.")
@click.option("--workers", type=click.IntRange(0), default=3, help="Processes that read pictures.")
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    default="~/.cache/portrait4d/metrics",
    help="Folder of the reals' statistics.",
)
@click.option("--no-cache", is_flag=True, help="Measure the reals anew.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=None,
    help="File to append results to; default: metric-NAME.jsonl in the network's run directory, if it has one.",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to run.")
@click.option(
    "--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), default="float32", help="Network's precision."
)
@click.option("--verbose", type=bool, default=True, help="Show progress.")
@click.option("--reload_modules", type=bool, default=False, help="Accepted for old command lines, without effect.")
def main(no_cache: bool, reload_modules: bool, **options: object) -> None:
    """Measure GenHead's heads against real portraits.

    Prints one line of JSON for each metric, with all settings. Heads take their cameras and parameters from the labels
    of --data, as in training.
    """
    import json

    from portrait4d.config.measuring import MeasureConfig
    from portrait4d.inference.measure_job import run_measurement

    if no_cache:
        options["cache"] = None
    with explain_errors():
        for line in run_measurement(MeasureConfig(**options)):
            click.echo(json.dumps(line))


if __name__ == "__main__":
    main()
