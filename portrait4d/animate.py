"""Animate photos by a film, pictures, a template or a camera: one command, one film."""

from pathlib import Path

import click

from portrait4d.option_types import FiniteFloat, FiniteFloatRange


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option(
    "--source",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    help="Photo, folder of photos, or prepared folder; may be given several times.",
)
@click.option(
    "--driving",
    required=True,
    help="Film, picture, folder of pictures, prepared folder, template (.safetensors), or webcam:N.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Film to write: .mp4, .mov or .webm.")
@click.option(
    "--network",
    type=click.Path(path_type=Path),
    default=None,
    help="Network: .safetensors, or a published .pkl; default: the published one if it is there, else the bundled one.",
)
@click.option(
    "--paste-back",
    type=click.Choice(["off", "source", "driving"]),
    default="off",
    help="Lay the head back into the photo, or into the driving frames.",
)
@click.option(
    "--background",
    type=click.Choice(["source", "colour", "transparent"]),
    default="source",
    help="Behind the head; transparent needs .mov or .webm.",
)
@click.option("--colour", default="#00b140", help="Of --background colour.")
@click.option(
    "--stabilise", type=click.Choice(["off", "light", "strong"]), default="off", help="Filter trembling of the driver."
)
@click.option("--relative", is_flag=True, help="Apply the driver's change against its first frame.")
@click.option("--expression-scale", type=FiniteFloatRange(0, 3), default=1.0, help="Exaggerate, or damp, expressions.")
@click.option(
    "--camera", default="driver", metavar="[driver|frontal|orbit|PATH.json]", help="Where the head is seen from."
)
@click.option("--yaw", "yaw_deg", type=FiniteFloat(), default=30.0, help="Orbit: degrees to each side.")
@click.option("--pitch", "pitch_deg", type=FiniteFloat(), default=0.0, help="Orbit: degrees up and down.")
@click.option("--orbit-s", type=FiniteFloatRange(0, min_open=True), default=4.0, help="Orbit: seconds of a round.")
@click.option("--fps", type=FiniteFloatRange(1, 240), default=None, help="Frames per second; default: the driver's.")
@click.option("--still-fps", type=FiniteFloatRange(1, 240), default=25.0, help="Frames per second of pictures.")
@click.option(
    "--layout",
    type=click.Choice(["result", "side-by-side", "grid"]),
    default="result",
    help="Results alone, source | result | driver, or driver and results in a grid.",
)
@click.option(
    "--missing",
    type=click.Choice(["hold", "fade"]),
    default="hold",
    help="Where the driver shows no face: hold the last pose, or fade to the photo's.",
)
@click.option("--frames", type=click.IntRange(1), default=None, help="Stop after so many driving frames.")
@click.option(
    "--save-template",
    type=click.Path(path_type=Path),
    default=None,
    help="Also write the driver's motion and pose, without pictures, as .safetensors.",
)
@click.option("--audio/--no-audio", default=True, help="Keep the driving film's sound.")
@click.option(
    "--render-size",
    type=click.IntRange(1, 1024),
    default=None,
    help="Rays per side; default: the network's own.",
)
@click.option("--chunk", type=click.IntRange(1), default=None, help="Rays rendered at once; default: for the device.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to run.")
@click.option(
    "--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), default="float32", help="Precision of networks."
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    default="~/.cache/portrait4d/sources",
    help="Where tracked photos are kept.",
)
@click.option("--no-cache", is_flag=True, help="Keep no tracked photos.")
def main(no_cache: bool, **options: object) -> None:
    """Animate photos and write a film.

    Photos and films of people need a published network and the published weights (fetch_assets.py --list); without
    them pictures of the open head world work, with the bundled demonstration network.
    """
    from dataclasses import replace

    from tqdm import tqdm

    from data_preprocess.clip_tracker import PublishedTrackers
    from portrait4d.config.animation import AnimateConfig
    from portrait4d.inference.animate_job import AnimationReport, choose_network, run_animation
    from portrait4d.script_options import run_job

    options["cache"] = None if no_cache else options["cache"]
    config = AnimateConfig(**options)

    def job() -> AnimationReport:
        choice = choose_network(config.network)
        click.echo(choice.explanation)
        trackers = None if choice.is_open_world else PublishedTrackers(config.device)
        with tqdm(unit="frame", smoothing=0.05) as bar:

            def show(done: int, total: int | None) -> None:
                if done == 1:
                    bar.reset(total)  # the time of preparing says nothing of the frames'
                bar.update(done - bar.n)

            return run_animation(replace(config, network=choice.path), show, trackers)

    run_job(job)


if __name__ == "__main__":
    main()
