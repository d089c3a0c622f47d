"""Configuration loading: defaults, overrides, and errors by dotted path."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from portrait4d.config.load import CONFIG_FOLDER, config_from_dict, load_config
from portrait4d.config.networks import ReconstructorConfig, tiny_reconstructor
from portrait4d.files.errors import InputFileError, UserError


def test_round_trip_through_json() -> None:
    for config in (ReconstructorConfig(), tiny_reconstructor()):
        assert config_from_dict(ReconstructorConfig, json.loads(json.dumps(asdict(config)))) == config


def test_published_sizes_are_the_defaults_and_the_shipped_file() -> None:
    assert load_config(ReconstructorConfig, "portrait4d-v2-512.yaml") == ReconstructorConfig()
    assert ReconstructorConfig().motion_dim == 548


@pytest.mark.parametrize("path", sorted(CONFIG_FOLDER.glob("*.yaml")), ids=lambda p: p.name)
def test_every_shipped_file_is_valid(path: Path) -> None:
    load_config(ReconstructorConfig, path)


def test_overrides(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("image_resolution: 256\n")
    config = load_config(ReconstructorConfig, path, ["volume.box_warp=1.2", "background_widths=[8, 8, 8, 8]"])
    assert (config.image_resolution, config.volume.box_warp, config.background_widths) == (256, 1.2, (8, 8, 8, 8))
    with pytest.raises(UserError, match=r"'box_warp': expected section.key=value"):
        load_config(ReconstructorConfig, path, ["box_warp"])
    with pytest.raises(UserError, match="image_resolution is a value, not a section"):
        load_config(ReconstructorConfig, path, ["image_resolution.x=1"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("volume: {box_wrap: 1.2}", "volume.box_wrap: Unexpected keyword argument"),
        ("image_resolution: '512'", "image_resolution: Input should be a valid integer"),
        ("image_resolution: 100", "image_resolution: expected a multiple of 32"),
        ("volume: {depth_samples: 2}", "depth_samples: expected at least 4, got 2"),
        ("motion_kind: arkit", "motion_kind: Input should be 'pdfgc' or 'flame'"),
        ("- 1", "expected a mapping at the top, got list"),
        ("a: [", "is not YAML"),
    ],
)
def test_bad_files_are_one_line_with_the_file_and_the_path(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InputFileError) as error:
        load_config(ReconstructorConfig, path)
    assert message in str(error.value)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_a_missing_file_lists_what_there_is() -> None:
    with pytest.raises(InputFileError, match="no such configuration; in .*portrait4d-v2-512.yaml"):
        load_config(ReconstructorConfig, "nowhere/absent.yaml")
