"""Face parsing: labels of pixels, which are the head, licences of cards; a checkpoint that `transformers` loads."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from data_preprocess.face_parsing import (
    FaceParser,
    choose_head_labels,
    licence_of_card,
    load_face_parser,
    read_licence,
)
from portrait4d.files.errors import UserError
from tests.helpers.stub_parser import LABELS, half_sized, stub_parser, write_checkpoint

CPU = torch.device("cpu")


def test_labels_lie_where_the_picture_says() -> None:
    parser = stub_parser()
    image = torch.full((3, 20, 32), -1.0)
    image[0, 4:12, 8:24] = 1.0  # red is skin
    image[1, 12:, :] = 1.0  # green is hair
    wide, square = parser.prepare(image), parser.prepare(image[:, :, :20])
    labels = parser.label_pixels([wide, square, wide])
    assert [tuple(one.shape) for one in labels] == [(20, 32), (20, 20), (20, 32)]
    expected = torch.zeros(20, 32, dtype=torch.int64)
    expected[4:12, 8:24] = 1
    expected[12:] = 2
    assert torch.equal(labels[0], expected) and torch.equal(labels[2], expected)
    assert torch.equal(labels[1], expected[:, :20])


def test_logits_are_enlarged_before_labels_are_chosen() -> None:
    """Two logits of one pixel each, 1 and -3 against 0: they cross a quarter of the way between their centres."""

    class Two(nn.Module):
        def forward(self, pixel_values: Tensor) -> SimpleNamespace:
            row = torch.tensor([[0.0, 0.0], [1.0, -3.0]])
            return SimpleNamespace(logits=row[None, :, None].expand(len(pixel_values), -1, -1, -1))

    parser = FaceParser(Two(), half_sized, {0: "background", 1: "head"})
    labels = parser.label_pixels([parser.prepare(torch.zeros(3, 4, 80))])[0]
    boundary = 20 + 40 / 4
    assert torch.equal(labels, (torch.arange(80) + 0.5 < boundary).long().expand(4, -1))


@pytest.mark.parametrize(
    ("head", "background", "expected"),
    [
        (None, ("background",), {1, 2, 3}),
        (None, ("Background", "3"), {1, 2}),
        (("skin", " HAIR"), ("background",), {1, 2}),
        (("3",), ("nothing",), {3}),
    ],
)
def test_head_labels(head: Sequence[str] | None, background: Sequence[str], expected: set[int]) -> None:
    assert choose_head_labels(LABELS, head, background) == expected


def test_labels_that_do_not_exist() -> None:
    with pytest.raises(UserError, match="--head-labels: the checkpoint has no label 'nose'; it has 0 background, 1 sk"):
        choose_head_labels(LABELS, ("skin", "nose"))
    with pytest.raises(UserError, match="--background-labels: the checkpoint has no label 'background'"):
        choose_head_labels({0: "LABEL_0", 1: "LABEL_1"}, None)
    with pytest.raises(UserError, match="--background-labels: no label is left"):
        choose_head_labels(LABELS, None, ("0", "1", "2", "3"))


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlicense: mit\ntags:\n- face\n---\n# Model\n", "licence: mit"),
        ("---\nlicense:\n  - mit\n  - cc-by-4.0\nlanguage: en\n---\n", "licence: mit, cc-by-4.0"),
        (
            "---\nlicense: other\nlicense_name: 'own terms'\nlicense_link: https://example.org/l\n---\n",
            "licence: other, own terms, https://example.org/l",
        ),
        ("# Model\nlicense: mit\n", "licence not stated"),
        ("---\ntags: [face]\n---\nlicense: mit\n", "licence not stated"),
        ("---\nlicense:\ntags:\n- face\n---\n", "licence not stated"),
        ("", "licence not stated"),
    ],
)
def test_licences(card: str, expected: str, tmp_path: Path) -> None:
    assert licence_of_card(card) == expected
    assert read_licence(str(tmp_path)) == "licence not stated"
    (tmp_path / "README.md").write_text(card)
    assert read_licence(str(tmp_path)) == expected


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A tiny SegFormer with random weights, as `transformers` saves it."""
    pytest.importorskip("transformers", reason="transformers is not installed (extra `segmentation`)")
    return write_checkpoint(tmp_path / "tiny")


def test_a_checkpoint_is_loaded(checkpoint: Path) -> None:
    import transformers

    parser = load_face_parser(str(checkpoint), CPU)
    assert parser.labels == LABELS and not parser.network.training
    image = torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
    labels = parser.label_pixels([parser.prepare(image)])[0]
    rows = (image * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    processor = transformers.AutoImageProcessor.from_pretrained(checkpoint)
    network = transformers.AutoModelForSemanticSegmentation.from_pretrained(checkpoint).eval()
    with torch.no_grad():
        logits = network(**processor(images=rows, return_tensors="pt"))
    expected = processor.post_process_semantic_segmentation(logits, target_sizes=[(48, 48)])[0]
    assert torch.equal(labels, expected) and len(np.unique(labels)) > 1


def test_checkpoints_that_cannot_be_used(checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    with pytest.raises(UserError, match="--checkpoint nobody/nothing: cannot be loaded .*add --download"):
        load_face_parser("nobody/nothing", CPU)
    assert read_licence("nobody/nothing") == "licence not stated"
    weights = checkpoint / "model.safetensors"
    arrays = load_file(weights)
    arrays.pop("decode_head.classifier.weight")
    save_file(arrays, weights, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"1 arrays are missing \(decode_head.classifier.weight"):
        load_face_parser(str(checkpoint), CPU)
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be loaded"):
        load_face_parser(str(checkpoint), CPU)
