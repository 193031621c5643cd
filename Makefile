# Two commands do all the set-up on a fresh machine: `make matrix` and `make test`. Both may be repeated.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TEST_CACHE ?= $(CURDIR)/.cache/tests
TEST_JOBS ?= 2
BENCHMARKS := boot_to_ssh warm_cell orchestrator_memory layers

.PHONY: help matrix artefacts test test-all lint bench gpu-check host venv clean

help:
	@echo 'make matrix    set up this host, run the default matrix, print the path of the HTML report'
	@echo 'make artefacts compile the device code of the compute tests and compare it with the list of digests'
	@echo 'make test      set up this host, run linters, type checks and the fast tests'
	@echo 'make test-all  the same with the slow lanes (many real VMs)'
	@echo 'make bench     measure us and our peers in the same run'
	@echo 'make gpu-check run the compute tests and a peer on the GPU of this machine, in at most 9 minutes'
	@echo 'make clean     remove what runs left behind, and the virtualenv'

host:
	@scripts/install-host-packages

$(VENV)/.ready: pyproject.toml
	@echo "== virtualenv $(VENV): kdmatrix with its dependencies and the development tools"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install -qq --editable '.[build]' --group dev
	@touch $@

venv: $(VENV)/.ready

matrix: host venv
	@$(BIN)/kdmatrix run

artefacts: host venv
	@$(BIN)/kdmatrix artefacts

lint: venv
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/mypy benchmarks/*.py
	@! LC_ALL=C.UTF-8 grep -rnE '^.{121}' gpu_tests tests --include='*.cpp' --include='*.h' --include='*.inc'

test: host lint
	@KDMATRIX_TEST_CACHE='$(TEST_CACHE)' $(BIN)/python -m pytest -m 'not slow' -n $(TEST_JOBS) --dist loadfile

test-all: host lint
	@KDMATRIX_TEST_CACHE='$(TEST_CACHE)' $(BIN)/python -m pytest -n $(TEST_JOBS) --dist loadfile

bench: host venv
	@for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python "benchmarks/$$name.py"; done

gpu-check: venv
	@PYTHONPATH='$(CURDIR)' $(BIN)/python benchmarks/gpu_peers.py --cache '$(TEST_CACHE)/gpu' $(GPU_CHECK)

clean:
	@if [ -x $(BIN)/kdmatrix ]; then $(BIN)/kdmatrix clean; fi
	@rm -rf $(VENV) .cache .pytest_cache .mypy_cache .ruff_cache
