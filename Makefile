# Every target does its own set-up: on a fresh machine Python 3.11, 3.12 or 3.13, git, make, curl, a C compiler and Go are enough.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# Where it is set, each process compiles its imports anew: a trainer's take 23 s of CPU instead of 14.
unexport PYTHONDONTWRITEBYTECODE

CACHE := $(or $(FINETUNE_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/finetune-operator)
UV_VERSION := 0.13.9
UV := $(CACHE)/uv-$(UV_VERSION)/bin/uv
BIN := .venv/bin
READY := .venv/.ready
SOURCES := crds operator trainer tests images examples docs
PYTHONS := 3.11 3.12 3.13
# The first where it is there, else any of the others.
PYTHON = $(shell python3.11 -c '' 2>/dev/null && echo 3.11 || echo '>=3.11,<3.14')

.PHONY: help demo quick programs test soak test-pythons verify lint types layers generated lock generate format e2e bench clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | sort | column -ts $$'\t'

$(UV):
	@echo "· installing uv $(UV_VERSION) into $(CACHE)"
	@python3 -m venv $(CACHE)/uv-$(UV_VERSION)
	@$(CACHE)/uv-$(UV_VERSION)/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(READY): uv.lock pyproject.toml | $(UV)
	@echo "· installing the locked Python packages into .venv (6 GB with torch, about a minute)"
	@$(UV) sync --locked --all-extras --quiet --python "$(PYTHON)"
	@touch $(READY)

# Beside .venv, in which tests, and peers of most measurements, run without what a few measurements need.
BENCH := .venv-bench
$(BENCH)/.ready: uv.lock pyproject.toml | $(UV)
	@echo "· installing the locked Python packages, and those of measurements, into $(BENCH)"
	@UV_PROJECT_ENVIRONMENT=$(BENCH) $(UV) sync --locked --all-extras --group bench --quiet --python "$(PYTHON)"
	@touch $@

TASK := text-classification
demo: $(READY) ## fine-tune a model on this machine, no cluster: one to two minutes; TASK=image-classification, or any other
	@$(BIN)/python -m examples.demo $(TASK)

programs: $(READY)
	@$(BIN)/python -m tests.cluster.binaries etcd kube-apiserver kube-controller-manager kubectl helm versitygw

test: programs ## every test, against a real etcd and API server and a real S3 server
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder
	@$(MAKE) --jobs=2 --output-sync=target test-pythons

# What needs neither torch nor plots. A test that takes seconds is named at the end; such are marked as slow.
QUICK := $(addprefix tests/unit/,api operator docs examples project trainer/data trainer/scores trainer/store)
quick: $(READY) ## lint, and the unit tests that need neither torch nor a server: for whoever works on one place
	@$(MAKE) lint
	@$(BIN)/python -m pytest -q -n 3 --dist loadfile -m "not soak and not slow" --durations 5 --durations-min 3 $(QUICK)

soak: programs ## the long forms of the tests: every architecture, store and dialect, dozens of kills, thousands of manifests
	@$(BIN)/python -m pytest -m soak -n 2 --dist load

ON_PYTHONS := $(addprefix test-on-python-,$(PYTHONS))
.PHONY: $(ON_PYTHONS)
test-pythons: $(ON_PYTHONS) ## the tests of API and operator on each other supported Python that is installed

# One process each, side by side: four workers for one Python after another took a sixth more, for handing out tests of milliseconds.
$(ON_PYTHONS): test-on-python-%: $(READY)
	@main=$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	if [ $* = $$main ]; then exit; fi; \
	python=$$(for candidate in python$* $(HOME)/.pyenv/versions/$*.*/bin/python; do \
	  $$candidate -c 'import sys; print(sys.executable)' 2>/dev/null && break; done || true); \
	if [ -z "$$python" ]; then echo "· Python $* is not installed: its tests are skipped"; exit; fi; \
	echo "· tests of API and operator on Python $*"; \
	UV_PROJECT_ENVIRONMENT=.venv-$* $(UV) run --locked --quiet --python $$python \
	  --extra operator --extra cli --no-group demo --no-group oracles python -m pytest -q tests/unit/api tests/unit/operator

verify: lint types layers generated lock ## format, lint, strict types, layers, no drift in generated files, lock file current

lint: $(READY)
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/ruff check $(SOURCES)

types: $(READY)
	@$(BIN)/mypy --cache-dir=$(CACHE)/mypy

layers: $(READY)
	@$(BIN)/lint-imports --no-logo

generated: $(READY)
	@$(BIN)/python -m finetune_api.generate --check

lock: $(READY)
	@$(UV) lock --check

generate: $(READY) ## write the CRD and the reference from the models
	@$(BIN)/python -m finetune_api.generate

format: $(READY) ## format and fix what can be fixed
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/ruff check --fix $(SOURCES)

e2e: $(READY) ## a whole cluster on this machine: chart, real pods, real S3 (Linux, root, 25 GB of disk)
	@$(BIN)/python -m tests.e2e

bench: $(READY) $(BENCH)/.ready ## measurements beside peers, as JSON lines; NAMES="mrpc xquad", or others of tests/bench, only these
	@$(BIN)/python -m tests.bench $(NAMES)

clean: ## remove what make has made in this folder; the cache $(CACHE) is separate
	rm -rf .venv* .pytest_cache .ruff_cache .hypothesis runs
