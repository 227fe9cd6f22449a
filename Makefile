# `make run` and `make test` are the whole set-up.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RUN_ARGS ?=

.PHONY: run test test-slow lint docs-shots setup clean

run: setup
	$(BIN)/python -m kdsearch.run clfd $(RUN_ARGS)

test: setup
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow and not ray"

# Whole studies on local Ray clusters, killed workers, servers that go away.
test-slow: setup
	$(BIN)/python -m pytest -n 2 --dist load -m "slow or ray" --durations=25

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

# Renews the pictures of pages in docs/images, with headless Chromium where there is one.
docs-shots: setup
	$(BIN)/python tools/docs_shots.py

setup: $(READY)

# The order matters: torch first and alone, so that its pin is met by a CPU build where there is one, and no other
# package's range can pull the default build with its CUDA packages.
$(READY): pyproject.toml constraints.txt
	@echo "setting up $(VENV): about two minutes and 2.5 GB, once"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt torch
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@touch $(READY)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
