# Everything needs only Python 3.11 or newer, make and a package index. `make` alone lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH_VENV := .venv-bench
BENCH_BIN := $(BENCH_VENV)/bin
# What is measured runs on the system's own Python where that will do: it is built for speed, as those are that people
# deploy, and one that was built on the spot mostly is not (see bench/README.md).
BENCH_PYTHON ?= $(shell for python in /usr/bin/python3 $(PYTHON); do \
	$$python -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && exit; done)
DEMO_OPTIONS ?=
# Tests that wait for servers to fail and to come back leave room for another.
TEST_PROCESSES ?= 2
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= gob cookie go_session token record
SOAK_SECONDS ?= 600
FAILURE_FIGURES := build/failure-figures.jsonl

.PHONY: help setup demo test lint types unit format bench bench-quick bench-core bench-growth bench-instructions fuzz soak failure-report clean

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# Made again when what it is made from changes. Old pips don't know dependency groups, hence the upgrade.
$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip==26.3'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cookie,csrf,demo,gorilla]' --group dev --group frameworks --group old-systems
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

unit: $(VENV)/.browser-ready
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

# Looked for once: tests/browser says so where there is none after all.
$(VENV)/.browser-ready: $(VENV)/.ready tests/browser/install.sh
	sh tests/browser/install.sh
	@touch $@

format: setup  ## Format the code
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# The frameworks and session libraries that Coatcheck is measured beside. `make test` needs none of them.
$(BENCH_VENV)/.ready: pyproject.toml
	$(BENCH_PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_BIN)/python -m pip install --quiet --disable-pip-version-check 'pip==26.3'
	$(BENCH_BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo]' --group bench
	@touch $@

bench: $(BENCH_VENV)/.ready  ## Measure Coatcheck and its peers over HTTP (see bench/README.md)
	$(BENCH_BIN)/python -m bench.peers

bench-quick: $(BENCH_VENV)/.ready  ## The same for four of them, in a minute or two
	$(BENCH_BIN)/python -m bench.peers --quick

bench-core: $(BENCH_VENV)/.ready  ## Measure the core, without a network
	$(BENCH_BIN)/python bench/core.py

$(VENV)/.fuzz-ready: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group fuzz
	@touch $@

fuzz: $(VENV)/.fuzz-ready  ## Fuzz the decoders, FUZZ_SECONDS=60 each (FUZZ_TARGETS="gob cookie" chooses)
	for target in $(FUZZ_TARGETS); do $(BIN)/python fuzz/run.py $$target $(FUZZ_SECONDS) || exit 1; done

soak: setup  ## Ten minutes of traffic on a Redis that fails again and again (SOAK_SECONDS changes it)
	SOAK_SECONDS=$(SOAK_SECONDS) $(BIN)/python tests/failure/soak.py

failure-report: setup  ## Measure what the failures of Redis do, and write it into docs/redis-failures.md
	@mkdir -p $(dir $(FAILURE_FIGURES)) && rm -f $(FAILURE_FIGURES)
	COATCHECK_FAILURE_REPORT=$(FAILURE_FIGURES) $(BIN)/python -m pytest tests/failure
	COATCHECK_FAILURE_REPORT=$(FAILURE_FIGURES) $(MAKE) soak
	$(BIN)/python tests/failure/render_report.py $(FAILURE_FIGURES)

bench-instructions: $(BENCH_VENV)/.ready  ## Count the instructions of a request, which noise does not change
	$(BENCH_BIN)/python -m bench.instructions

bench-growth: $(BENCH_VENV)/.ready  ## Measure a request with a thousand to a million sessions in Valkey
	$(BENCH_BIN)/python -m bench.growth

clean:  ## Remove what setup made
	rm -rf $(VENV) $(BENCH_VENV) .bench
