"""A page to play with a head: reenact, explore, mesh, sample."""

from pathlib import Path

import click

from portrait4d.option_types import FiniteFloatRange
from portrait4d.script_options import explain_errors


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option("--host", default="127.0.0.1", help="Address to listen on; others than this let other machines in.")
@click.option("--port", type=click.IntRange(1, 65535), default=7860, help="Port to listen on.")
@click.option(
    "--network",
    type=click.Path(path_type=Path),
    default=None,
    help="Reconstructor: .safetensors, or a published .pkl; default: the bundled demonstration network.",
)
@click.option(
    "--genhead",
    type=click.Path(path_type=Path),
    default=None,
    help="GenHead of the tab Sample, likewise; default: the bundled one.",
)
@click.option("--max-seconds", type=FiniteFloatRange(0.1), default=20.0, help="Longest driving clip.")
@click.option("--max-megabytes", type=FiniteFloatRange(0.1), default=64.0, help="Largest upload.")
@click.option("--jobs", type=click.IntRange(1, 64), default=1, help="Films made at the same time; others wait.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to run.")
def main(**options: object) -> None:
    """Serve the app to this machine's browser; nothing is sent anywhere.

    Needs gradio: pip install 'portrait4d[app]'. Ctrl-C ends it and removes its temporary files.
    """
    from portrait4d.config.web_app import WebAppConfig
    from portrait4d.inference.tracking import TrackerMaker
    from portrait4d.webapp.server import serve

    config = WebAppConfig(**options)

    def published_trackers() -> TrackerMaker:
        from data_preprocess.clip_tracker import PublishedTrackers

        return PublishedTrackers(config.device)

    def started() -> None:
        click.echo(f"Portrait4D is at http://{config.host}:{config.port} (Ctrl-C ends it)")

    with explain_errors():
        serve(config, started, published_trackers)


if __name__ == "__main__":
    main()
