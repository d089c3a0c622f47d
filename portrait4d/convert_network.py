"""Convert a network to .safetensors, or list what is in a published pickle. Nothing in a pickle is run."""

from pathlib import Path

import click

from portrait4d.script_options import explain_errors


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option(
    "--network",
    type=click.Path(path_type=Path),
    required=True,
    help="Published network pickle (.pkl), or a .safetensors file to store in another type.",
)
@click.option("--out", type=click.Path(path_type=Path), help="File to write (.safetensors).")
@click.option("--list", "listing", is_flag=True, help="Print JSON {network: {name: [shape, dtype]}} instead.")
@click.option(
    "--entry",
    type=click.Choice(["G_ema", "G", "D"]),
    default="G_ema",
    help="Network of the pickle: G_ema makes pictures; training goes on with G and D too.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16"]),
    default=None,
    show_default="as they are",
    help="How numbers are stored; they are loaded as float32 again.",
)
def main(network: Path, out: Path | None, listing: bool, entry: str, dtype: str | None) -> None:
    """Convert a network to our .safetensors format, or list what is in a published pickle.

    Reconstructors, GenHead and their discriminators are told apart by the class that the pickle names.

    A licensed head model in the pickle travels along: share the result only as its licence allows.
    """
    import json

    import torch

    from portrait4d.models.checkpoints import load_network, save_network
    from portrait4d.models.upstream_pickles import read_network_pickle
    from portrait4d.synthetic_heads.head_template import build_open_head

    if listing == (out is not None):
        raise click.UsageError("give either --out or --list")
    if out is not None and out.suffix != ".safetensors":
        raise click.UsageError(f"--out: expected a name ending in .safetensors, got {out.name}")
    with explain_errors():
        if listing:
            click.echo(json.dumps(list_networks(read_network_pickle(network))))
            return
        converted = load_network(network, build_open_head=build_open_head, entry=entry)
        save_network(out, converted, None if dtype is None else getattr(torch, dtype))
    count = sum(tensor.numel() for tensor in converted.state_dict().values())
    click.echo(f"{out}: {count:,} numbers, {out.stat().st_size / 2**20:.1f} MiB")


def list_networks(networks: dict) -> dict[str, dict[str, list]]:
    """Return {network: {name: [shape, dtype]}} of `read_network_pickle`'s networks, leaving out the absent ones."""
    return {
        key: {name: [list(t.shape), str(t.dtype).removeprefix("torch.")] for name, t in record.tensors.items()}
        for key, record in networks.items()
        if record is not None
    }


if __name__ == "__main__":
    main()
