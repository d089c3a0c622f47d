"""README commands are true: options exist, files exist, make targets exist."""

import re
from pathlib import Path

import pytest

from tests.helpers.cli import run_script

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.S)).replace("\\\n", " ")
COMMANDS = [line.split("#")[0].strip() for line in BLOCKS.splitlines() if line.strip()]


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python ")])
def test_script_options_exist(command: str) -> None:
    words = command.split()
    script = f"{words[2].replace('.', '/')}.py" if words[1] == "-m" else words[1]
    help_text = run_script(script, "--help").stdout
    for option in {w.split("=")[0] for w in words if w.startswith("--")}:
        assert re.search(rf"{option}\b", help_text), f"{option} is not an option of {script}"


def test_options_in_the_table_exist() -> None:
    help_text = run_script("portrait4d/gen_images_portrait4d.py", "--help").stdout
    for option in set(re.findall(r"(--[a-z][a-z_-]+)", README.split("| option |")[1].split("\n\n")[0])):
        assert option in help_text, option


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for target in re.findall(r"`?make ([a-z-]+)", README + (ROOT / "CONTRIBUTING.md").read_text()):
        assert target in targets, target


def test_linked_files_exist() -> None:
    for link in re.findall(r"\]\(([\w./-]+)\)", README):
        assert (ROOT / link).exists(), link
