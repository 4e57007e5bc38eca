# Everything needs only Python 3.11 or newer, make and a package index. `make` alone lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_OPTIONS ?=

.PHONY: help setup demo test lint types unit format bench clean

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# Made again when what it is made from changes. Old pips don't know dependency groups, hence the upgrade.
$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip==26.3'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo,gorilla]' --group dev --group old-systems
	@touch $@

setup: $(VENV)/.ready  ## Make the virtual environment

demo: setup  ## Run the demo on http://127.0.0.1:8000 (DEMO_OPTIONS="--port 8001" changes things)
	$(BIN)/coatcheck demo $(DEMO_OPTIONS)

test: lint types unit  ## Run every check: format, lint, types, tests

lint: setup
	$(BIN)/ruff format --check
	$(BIN)/ruff check

types: setup
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

unit: setup
	$(BIN)/python -m pytest

format: setup  ## Format the code
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: setup  ## Measure the core (see bench/README.md)
	$(BIN)/python bench/core.py

clean:  ## Remove what setup made
	rm -rf $(VENV)
