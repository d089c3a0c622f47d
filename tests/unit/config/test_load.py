"""Configuration loading: defaults, overrides, and errors by dotted path."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from portrait4d.config.landmark_training import LandmarkTraining
from portrait4d.config.load import CONFIG_FOLDER, config_from_dict, load_config, plain_config
from portrait4d.config.motion_training import MotionEncoderTraining
from portrait4d.config.networks import ReconstructorConfig, tiny_reconstructor
from portrait4d.config.recon_training import ReconV1Training, ReconV2Training
from portrait4d.config.training import GenHeadTraining
from portrait4d.files.errors import InputFileError, UserError

KINDS = {
    "portrait4d-v2-512": ReconstructorConfig,
    "reconstructor-": ReconstructorConfig,
    "genhead-": GenHeadTraining,
    "landmarks-": LandmarkTraining,
    "motion-encoder-": MotionEncoderTraining,
    "portrait4d-v2-": ReconV2Training,
    "portrait4d-": ReconV1Training,
}
"""What a shipped file configures, by how its name begins; the first one that fits counts."""


def test_round_trip_through_json() -> None:
    for config in (ReconstructorConfig(), tiny_reconstructor()):
        assert config_from_dict(ReconstructorConfig, json.loads(json.dumps(asdict(config)))) == config


def test_published_sizes_are_the_defaults_and_the_shipped_file() -> None:
    assert load_config(ReconstructorConfig, "portrait4d-v2-512.yaml") == ReconstructorConfig()
    assert ReconstructorConfig().motion_dim == 548


@pytest.mark.parametrize("path", sorted(CONFIG_FOLDER.glob("*.yaml")), ids=lambda p: p.name)
def test_every_shipped_file_is_valid(path: Path) -> None:
    kinds = [kind for prefix, kind in KINDS.items() if path.name.startswith(prefix)]
    assert kinds, f"{path.name}: KINDS does not say what it configures"
    load_config(kinds[0], path)


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "+1e-4", "1.e-4", "0.1e-3", ".1e-3", "1.0e-04", "0.000_1", "1_0e-5"])
def test_numbers_with_an_exponent_are_numbers(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"optim: {{generator_lr: {text}}}")
    assert load_config(GenHeadTraining, path).optim.generator_lr == pytest.approx(1e-4)
    assert load_config(GenHeadTraining, path, [f"blur.sigma={text}"]).blur.sigma == pytest.approx(1e-4)


@pytest.mark.parametrize(("text", "number"), [("2e3", 2000.0), ("-1.5e1", -15.0), ("1.5e1", 15.0)])
def test_an_exponent_needs_no_sign_and_no_point(tmp_path: Path, text: str, number: float) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("")
    if number > 0:
        assert load_config(GenHeadTraining, path, [f"run.kimg={text}"]).run.kimg == number
    else:
        with pytest.raises(InputFileError, match=r"kimg, tick_kimg: expected positive, got \(-15.0, 4.0\)"):
            load_config(GenHeadTraining, path, [f"run.kimg={text}"])


@pytest.mark.parametrize("name", ["1e5_portraits", "2e3-faces", "00e1x", "e5", "1e", "1e5.lmdb", "./1e5"])
def test_a_name_that_begins_like_a_number_stays_a_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("")
    assert load_config(GenHeadTraining, path, [f"data.path={name}"]).data.path == Path(name)


def test_other_yaml_readers_keep_their_numbers() -> None:
    import yaml

    assert yaml.safe_load("1e-4") == "1e-4"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("run.workers=-1", "run: Value error, workers: expected at least 0, got -1"),
        ("run.keep_networks=0", "keep_networks: expected at least 1, got 0"),
        ("run.batch=6", "chunk: expected a divisor of batch / gpus, 6, got 4"),
        ("run.gpus=3", "batch: expected a multiple of gpus, 3, got 32"),
        ("optim.patience=0", "patience: expected at least 1, got 0"),
        ("optim.chunk_reduction=max", "optim.chunk_reduction: Input should be 'mean' or 'sum'"),
        ("data.max_size=0", "max_size: expected at least 1, got 0"),
        ("adversarial.interval=0", "interval: expected at least 1, got 0"),
        ("density.interval=0", "interval: expected at least 1, got 0"),
        ("resolution.initial=0", "initial, final: expected at least 1"),
        ("blur.fade_kimg=-1", "sigma, fade_kimg: expected at least 0"),
        ("conditioning.swap_probability=1.5", "swap_probability: expected from 0 to 1, got 1.5"),
        ("head=smpl", "head: Input should be 'flame' or 'synthetic'"),
        ("optim.generator_lr=.nan", "optim.generator_lr: Input should be a finite number"),
        ("blur.sigma=.inf", "blur.sigma: Input should be a finite number"),
    ],
)
def test_numbers_out_of_range_in_a_training_are_named(tmp_path: Path, override: str, message: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("run: {chunk: 4}")
    with pytest.raises(InputFileError) as error:
        load_config(GenHeadTraining, path, [override])
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_configuration_goes_through_its_plain_values(tmp_path: Path) -> None:
    config = load_config(GenHeadTraining, "genhead-smoke.yaml", [f"data.path={tmp_path / 'faces'}", "run.chunk=null"])
    plain = json.loads(json.dumps(plain_config(config)))
    assert plain["data"]["path"] == str(tmp_path / "faces") and plain["run"]["chunk"] is None
    assert config_from_dict(GenHeadTraining, plain) == config


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
        ("volume: {box_warp: 1.2}\nimage_resolution: 64\nvolume: {}", "is not YAML: 'volume' comes twice"),
        ("volume: {box_warp: 1.2, box_warp: 1.3}", "'box_warp' comes twice"),
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


def test_a_section_may_extend_another(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("volume: &v {<<: {box_warp: 1.2, depth_samples: 8}, box_warp: 1.3}\n")
    assert load_config(ReconstructorConfig, path).volume.box_warp == 1.3
    path.write_text("volume: {}\nimage_resolution: 64\nvolume: {}\n")
    with pytest.raises(InputFileError, match="line 3, column 1"):
        load_config(ReconstructorConfig, path)


def test_a_missing_file_lists_what_there_is() -> None:
    with pytest.raises(InputFileError, match="no such configuration; in .*portrait4d-v2-512.yaml"):
        load_config(ReconstructorConfig, "nowhere/absent.yaml")
