# Every target works in .venv and brings it up to date first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
KERNELS := $(VENV)/.kernels
# Asked for exactly and first: a range would take a build for CUDA, some gigabytes, where this one is on an index of its own.
TORCH := $(shell grep ^torch== constraints.txt)
PEERS := .venv-peers
SHAPE ?= shapes-sd
BATCH ?= 2
JOBS ?= $(shell n=$$(nproc); echo $$((n < 8 ? n : 8)))

.DEFAULT_GOAL := help
.PHONY: setup serve test test-all published check format bench bench-peers clean help

setup: $(STAMP) $(KERNELS) ## create .venv, install the pinned dependencies, compile the native kernels

$(STAMP): pyproject.toml setup.py constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Facsimile needs Python 3.11 or newer")'
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet -c constraints.txt setuptools
	$(BIN)/python -m pip install --quiet --no-build-isolation -c constraints.txt -e '.[gateway,worker,train,dev]'
	@touch $@

$(KERNELS): $(STAMP) $(wildcard quant/engine/native/source/*)
	$(BIN)/python -m quant.engine.native.compilation
	@touch $@

serve: setup ## start broker, worker, gateway and web page on http://127.0.0.1:8000
	$(BIN)/python -m app

test: setup ## the tests that take minutes at most, JOBS=... at once
	$(BIN)/python -m pytest -n $(JOBS) --no-loadscope-reorder

test-all: setup ## every test, the slow ones too
	$(BIN)/python -m pytest -n $(JOBS) --no-loadscope-reorder -m ''

published: setup ## pages, pictures and figures of the documents against the stored results
	$(BIN)/python -m pytest tests/published

check: $(STAMP) ## style, types and import rules: what CI runs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## time one step of a denoiser, rivals too if they are installed (SHAPE=..., BATCH=...)
	$(BIN)/python -m benchmarks.unet_step --shape $(SHAPE) --batch $(BATCH) --save
	$(BIN)/python -m benchmarks.report

bench-peers: $(PEERS)/.installed ## install the rivals of the benchmarks into an environment of their own

$(PEERS)/.installed: benchmarks/requirements-peers.txt
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet $(TORCH)
	$(PEERS)/bin/python -m pip install --quiet -c constraints.txt -r benchmarks/requirements-peers.txt
	@touch $@

clean: ## remove caches and build products; .venv and data stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -path "./$(VENV)*" -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
