# Everything installs from PyPI into .venv; no sudo, no conda. TORCH_INDEX chooses a PyTorch build (README, "Install").
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
TORCH := $(shell sed -n 's/^torch==/torch==/p' requirements.txt)

.PHONY: setup demo test test-fast check bench chain native clean
setup: $(STAMP)

$(STAMP): requirements.txt setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Portrait4D needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	$(PIP) -r requirements.txt
	$(PIP) --no-build-isolation --no-deps -e .
	touch $@

demo: setup
	$(BIN)/python -m portrait4d.demo --outdir demo

test: check
	$(BIN)/python -m pytest

test-fast: setup
	$(BIN)/python -m pytest -m "not slow" tests/unit tests/structure tests/golden

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -q tests/structure

chain: setup
	PYTHON=$(BIN)/python sh docs/chain.sh

bench: setup
	$(BIN)/python benchmarks/bench_reenact.py
	$(BIN)/python benchmarks/bench_genhead.py
	$(BIN)/python benchmarks/bench_triplane_render.py
	$(BIN)/python benchmarks/bench_nearest_triangle.py
	$(BIN)/python benchmarks/bench_rasterize.py

# Compiles the native operations into ~/.cache/portrait4d; from then on they serve (portrait4d/ops/backend.py).
native: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -c 'import sys; from portrait4d.ops.backend import build_native; sys.exit(not build_native())'

clean:
	rm -rf $(VENV) build dist *.egg-info demo
