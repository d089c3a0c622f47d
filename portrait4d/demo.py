"""Run the main job on bundled inputs: reenact a photo and painted heads by a stored head-pose sequence."""

from pathlib import Path

import click


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option("--outdir", type=click.Path(path_type=Path), default="demo", help="Where inputs and results go.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to run.")
def main(outdir: Path, device: str) -> None:
    """Reenact the bundled examples with a small seeded network that is NOT trained; say where the pictures are."""
    from portrait4d.config.experiments import ReenactConfig
    from portrait4d.inference.demo import EXAMPLES, write_driving_folder, write_untrained_network
    from portrait4d.inference.reenact_job import run_reenactment

    network, driving = outdir / "untrained-network.safetensors", outdir / "driving"
    click.echo(
        "This network is small, seeded and NOT trained: its pictures show that the machinery runs, not what it can do."
    )
    write_untrained_network(network)
    write_driving_folder(driving)
    results = outdir / "results"
    config = ReenactConfig(network, EXAMPLES, driving, results, render_size=64, device=device, grid=True, video=True)
    report = run_reenactment(config)
    click.echo(report.summary(results))
    click.echo(f"Look at {results / 'grid.jpg'} and {results / 'astronaut.mp4'}")


if __name__ == "__main__":
    main()
