"""Run the toy training as a command: run_toy.py OUTDIR GPUS."""

import sys
from pathlib import Path

from portrait4d.training.launch import launch
from tests.helpers.toy_training import toy_config, toy_job

if __name__ == "__main__":
    launch(toy_job(Path(sys.argv[1]), toy_config(gpus=int(sys.argv[2]))))
