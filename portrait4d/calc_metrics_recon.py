"""Evaluate a reconstructor: likeness to the truth, identity, expression, pose, jitter, FID, speed."""

from pathlib import Path

import click

from portrait4d.script_options import explain_errors


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option(
    "--network", type=click.Path(path_type=Path), required=True, help="Network: .safetensors, or a published .pkl."
)
@click.option(
    "--protocol",
    default="synthetic-v1",
    help="synthetic-v1 (50 held-out persons of the open head world), folder (a prepared clip), gaga-vfhq (a folder of "
    "prepared clips; first frame as source, 50 evenly spaced frames, 50 clips), or a file like synthetic-v1.json.",
)
@click.option("--data", type=click.Path(path_type=Path), default=None, help="Clip, or folder of clips.")
@click.option("--outdir", type=click.Path(path_type=Path), default="experiments/recon-metrics", help="For results.")
@click.option("--identities", type=click.IntRange(1), default=None, help="The first so many persons or clips only.")
@click.option(
    "--frames", type=click.IntRange(1), default=None, help="Drivers of a clip, evenly spaced; default: all (folder)."
)
@click.option(
    "--motion",
    type=click.Choice(["stored", "encoder", "none"]),
    default="stored",
    help="Stored motion_feats (exact in synthetic-v1), read from pictures, or none (static networks).",
)
@click.option(
    "--encoder",
    type=click.Choice(["synthetic", "pdfgc"]),
    default=None,
    help="What reads faces, to drive (--motion encoder) and to judge; default: synthetic for synthetic protocols.",
)
@click.option("--detector", default="inception", help="Of FID: inception, pixels16 or a file.")
@click.option("--accept-unverified", is_flag=True, help="Take a detector file whose sha256 is not known.")
@click.option(
    "--use_simplified",
    "--use-simplified",
    type=bool,
    default=False,
    help="Read bfm2flame_params_simplified instead of flame_optim_params.",
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    default="~/.cache/portrait4d/benchmarks",
    help="Folder of true pictures, rendered once.",
)
@click.option("--workers", type=click.IntRange(1), default=1, help="Processes that render true pictures.")
@click.option(
    "--render_size",
    "--render-size",
    type=click.IntRange(1, 1024),
    default=None,
    help="Rays; default: its own.",
)
@click.option("--chunk", type=click.IntRange(1), default=None, help="Rays at once; default: chosen for the device.")
@click.option("--pictures", type=click.IntRange(0), default=4, help="Draw the results of so many persons or clips.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of the bootstrap.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to run.")
@click.option(
    "--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), default="float32", help="Network's precision."
)
@click.option("--verbose", type=bool, default=True, help="Show progress.")
def main(**options: object) -> None:
    """Evaluate a reconstructor.

    Prints a table for each task, beside the network's figures those of two answers that need none: the source's picture
    as it is, and the mean of all true pictures. Writes frames.jsonl (a line for each frame), summary.json (means, 95 %
    bootstrap intervals over persons, definitions, what is missing, what failed) and pictures to --outdir.
    """
    from portrait4d.config.recon_metrics import ReconMetricsConfig
    from portrait4d.inference.recon_metrics_job import run_recon_metrics
    from portrait4d.inference.recon_summary import format_summary

    config = ReconMetricsConfig(**options)
    with explain_errors():
        summary = run_recon_metrics(config)
    click.echo(format_summary(summary))
    click.echo(f"written to {config.outdir}")


if __name__ == "__main__":
    main()
