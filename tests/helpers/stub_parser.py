"""Stand-ins for face parsing: a network for which red is skin, green hair, blue cloth; a tiny random SegFormer."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

from data_preprocess.face_parsing import FaceParser

LABELS = {0: "background", 1: "skin", 2: "hair", 3: "cloth"}


class ColourNetwork(nn.Module):
    """Colours as logits, and a little for the background."""

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        """Label pixel values (B, 3, h, w)."""
        background = torch.full_like(pixel_values[:, :1], 0.5)
        return SimpleNamespace(logits=torch.cat([background, pixel_values], 1))


def half_sized(images: list[np.ndarray], return_tensors: str, input_data_format: str) -> dict[str, Tensor]:
    """Make pixel values in [0, 1] of every second row and column, as an image processor of `transformers` would."""
    assert (return_tensors, input_data_format) == ("pt", "channels_last")
    rows = np.stack(images)
    assert rows.dtype == np.uint8 and rows.shape[3] == 3
    return {"pixel_values": torch.from_numpy(rows[:, ::2, ::2].copy()).permute(0, 3, 1, 2) / 255}


def stub_parser() -> FaceParser:
    """Return the stand-in."""
    return FaceParser(ColourNetwork(), half_sized, LABELS)


def write_checkpoint(folder: Path) -> Path:
    """Save a tiny SegFormer with random weights and its image processor as `transformers` does; return the folder."""
    import transformers

    torch.manual_seed(0)
    sizes = {"depths": [1] * 4, "hidden_sizes": [8] * 4, "num_attention_heads": [1] * 4, "decoder_hidden_size": 8}
    names = {"id2label": LABELS, "label2id": {name: number for number, name in LABELS.items()}}
    config = transformers.SegformerConfig(**sizes, **names)
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(folder)
    transformers.SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder
