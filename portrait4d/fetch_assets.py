"""Fetch published networks and data into one assets folder, or say what is there."""

import sys
from pathlib import Path

import click

from portrait4d.script_options import explain_errors


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.argument("keys", nargs=-1)
@click.option(
    "--assets", type=click.Path(path_type=Path), default=None, help="Folder for the files; default: $PORTRAIT4D_ASSETS."
)
@click.option("--list", "listing", is_flag=True, help="Say what is there and what is missing; fetch nothing.")
@click.option("--accept-licences", is_flag=True, help="You have read the licences that are shown and accept them.")
@click.option(
    "--repo", default=None, help="OWNER/NAME of the published Portrait4D models on Hugging Face ($HF_ENDPOINT)."
)
@click.option("--revision", default="main", help="Revision of --repo.")
@click.option(
    "--url", "urls", multiple=True, metavar="KEY=ADDRESS", help="Address of a file; may end in #sha256=HEX. Repeatable."
)
def main(
    keys: tuple[str, ...],
    assets: Path | None,
    listing: bool,
    accept_licences: bool,
    repo: str | None,
    revision: str,
    urls: tuple[str, ...],
) -> None:
    """Fetch the files KEYS (default: all that are missing) into the assets folder, or --list them.

    Downloads go on where they broke off and are verified. FLAME and the Basel Face Model are never fetched: --list says
    how to get them and checks what you have put in their places. Status 1 if something wanted is not there at the end.
    """
    from portrait4d.models.pretrained.fetching import FetchRequest, list_assets, resolve_assets_folder

    for url in urls:
        if "=" not in url:
            raise click.UsageError(f"--url: expected KEY=ADDRESS, got {url!r}")
    addresses = dict(url.split("=", 1) for url in urls)
    with explain_errors():
        folder = resolve_assets_folder(assets)
        if listing:
            states = list_assets(folder, keys)
            width = max(len(state.key) for state in states) + 2
            for state in states:
                click.echo(f"{state.state:8}{state.key:{width}}{state.title}: {state.place}")
                if state.note:
                    click.echo(f"{'':{8 + width}}{state.note}")
            return
        failures = _fetch(FetchRequest(folder, keys, repo, revision, addresses, accept_licences))
    if failures:
        click.echo(f"{failures} not fetched", err=True)
        sys.exit(1)


def _fetch(request: object) -> int:
    """Show licences, fetch, report; return the number of failures."""
    from tqdm import tqdm

    from portrait4d.files.errors import UserError
    from portrait4d.models.pretrained.fetching import choose_missing, describe_licences, fetch_assets, locate

    missing = choose_missing(request)
    if not missing:
        click.echo(f"nothing to fetch: everything asked for is in {request.assets}")
        return 0
    click.echo(describe_licences(missing))
    failures = 0
    with tqdm(unit="B", unit_scale=True, unit_divisor=1024) as bar:

        def progress(key: str) -> object:
            bar.set_description(key)

            def show(done: int, total: int | None) -> None:
                bar.total = total
                bar.update(done - bar.n)

            bar.reset()
            return show

        located = locate(request, missing) if request.accept_licences else {}
        for key, result in fetch_assets(request, located, progress):
            if isinstance(result, UserError):
                failures += 1
                bar.write(f"failed: {result}", file=sys.stderr)
            else:
                trust = "verified" if result.verified else "no sha256 was known before"
                bar.write(f"{key}: {result.size:,} bytes, sha256 {result.sha256} ({trust})")
    return failures


if __name__ == "__main__":
    main()
