"""Face parsing with a semantic-segmentation network of the `transformers` library: a label for every pixel.

The network is whatever the user names; this package brings none. Its labels have names, and its licence is in the card
(README.md) beside its weights.
"""

import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional

from data_preprocess.extras import import_extra
from portrait4d.data.image_io import to_uint8
from portrait4d.files.errors import UserError

_CARD = "README.md"
_UNUSABLE = (OSError, ValueError, LookupError, RuntimeError, ImportError, SafetensorError, pickle.UnpicklingError)
"""What `transformers` raises for checkpoints that are missing, damaged, or of another kind."""


@dataclass(frozen=True)
class ParserInput:
    """A picture on its way: `pixels` (3, h, w) as the network wants them, `size` (H, W) as it was."""

    pixels: Tensor
    size: tuple[int, int]


class FaceParser:
    """Label the pixels of pictures.

    Args:
        network: called with `pixel_values` (B, 3, h, w), gives an object with `logits` (B, L, h', w').
        processor: an image processor of `transformers`, which makes pixel values of bytes.
        labels: names of labels by their numbers.
    """

    def __init__(self, network: nn.Module, processor: Callable[..., Mapping[str, Tensor]], labels: Mapping[int, str]):
        self.network = network
        self.processor = processor
        self.labels = dict(labels)

    def prepare(self, image: Tensor) -> ParserInput:
        """Prepare a picture (3, H, W) in [-1, 1]."""
        rows = to_uint8(image).permute(1, 2, 0).numpy()
        values = self.processor(images=[rows], return_tensors="pt", input_data_format="channels_last")
        return ParserInput(values["pixel_values"][0], tuple(image.shape[1:]))

    @torch.no_grad()
    def label_pixels(self, inputs: Sequence[ParserInput]) -> list[Tensor]:
        """Return the labels' numbers (H, W) int64 of each picture, on the CPU; logits are enlarged bilinearly."""
        device = next((parameter.device for parameter in self.network.parameters()), torch.device("cpu"))
        groups: dict[torch.Size, list[int]] = {}
        for index, one in enumerate(inputs):
            groups.setdefault(one.pixels.shape, []).append(index)
        found: dict[int, Tensor] = {}
        for group in groups.values():
            logits = self.network(pixel_values=torch.stack([inputs[index].pixels for index in group]).to(device)).logits
            for index, one in zip(group, logits, strict=True):
                large = functional.interpolate(one[None].float(), inputs[index].size, mode="bilinear")
                found[index] = large[0].argmax(0).cpu()
        return [found[index] for index in range(len(inputs))]


def load_face_parser(checkpoint: str, device: torch.device, download: bool = False) -> FaceParser:
    """Load a checkpoint with `transformers`.

    Args:
        checkpoint: a folder, or the name of a model of the Hugging Face hub.
        device: where it runs.
        download: fetch from the hub what is not in its cache on this machine.

    Raises:
        UserError: `transformers` is not installed, or the checkpoint is not there or no complete segmentation network.
    """
    transformers = import_extra("transformers", "face parsing")
    name, where = f"--checkpoint {checkpoint}", {"local_files_only": not download}
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(checkpoint, **where)
        network, info = transformers.AutoModelForSemanticSegmentation.from_pretrained(
            checkpoint, output_loading_info=True, **where
        )
    except _UNUSABLE as error:
        hint = "" if download or Path(checkpoint).is_dir() else "; give a folder, or add --download"
        raise UserError(f"{name}: cannot be loaded ({' '.join(str(error).split())}){hint}") from error
    absent = [*info["missing_keys"], *info["mismatched_keys"]]
    if absent:
        raise UserError(
            f"{name}: no complete segmentation network, {len(absent)} arrays are missing ({absent[0]}, ...)"
        )
    if getattr(processor, "do_center_crop", False) or getattr(processor, "do_pad", False):
        raise UserError(f"{name}: its image processor cuts or pads pictures; expected one that resizes them only")
    return FaceParser(network.eval().to(device), processor, network.config.id2label)


def read_licence(checkpoint: str, download: bool = False) -> str:
    """Return what the card of a checkpoint says of its licence, or "licence not stated"; arguments as for loading.

    Raises:
        UserError: the checkpoint is no folder, and `transformers` with the hub's library is not installed.
    """
    card = Path(checkpoint) / _CARD
    if not Path(checkpoint).is_dir():
        hub = import_extra("transformers", "face parsing") and import_extra("huggingface_hub", "face parsing")
        try:
            card = Path(hub.hf_hub_download(checkpoint, _CARD, local_files_only=not download))
        except (OSError, ValueError):
            return "licence not stated"
    return licence_of_card(card.read_text(errors="replace")) if card.is_file() else "licence not stated"


def licence_of_card(card: str) -> str:
    """Return the licence in the metadata at the head of a model card, or "licence not stated"."""
    head = re.match(r"\s*---\s*\n(.*?)\n---", card, re.DOTALL)
    stated: list[str] = []
    for key in ("license", "license_name", "license_link"):
        field = re.search(rf"^{key}:(.*(?:\n[ \t]*- .*)*)", head[1] if head else "", re.MULTILINE)
        parts = re.split(r"\n[ \t]*- ", field[1]) if field else []
        stated += [part.strip(" \t\"'") for part in parts if part.strip(" \t\"'")]
    return f"licence: {', '.join(stated)}" if stated else "licence not stated"


def choose_head_labels(
    labels: Mapping[int, str], head: Sequence[str] | None, background: Sequence[str] = ("background",)
) -> set[int]:
    """Return the numbers of the labels that are the head.

    Args:
        labels: names by number.
        head: numbers or names of labels, in any case; None for all that are not `background`.
        background: numbers or names of what is not the head; without effect where `head` is given.

    Raises:
        UserError: a label that does not exist, or nothing left.
    """
    option = "--background-labels" if head is None else "--head-labels"
    numbers = {str(number): number for number in labels} | {name.lower(): number for number, name in labels.items()}
    chosen = set()
    for word in background if head is None else head:
        if word.strip().lower() not in numbers:
            listed = ", ".join(f"{number} {name}" for number, name in labels.items())
            raise UserError(f"{option}: the checkpoint has no label {word.strip()!r}; it has {listed}")
        chosen.add(numbers[word.strip().lower()])
    chosen = set(labels) - chosen if head is None else chosen
    if not chosen:
        raise UserError(f"{option}: no label is left for the head")
    return chosen
