# `make` lists the targets. Each sets up what it needs in $(VENV), once.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
STAMP := $(VENV)/.vclr-ready
ARGS ?=
JOBS ?= logical
EXTRAS ?= dev,bench

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-python test-readers test-lowest check format bench gpu-check wheel docs clean

MINOR = $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "vclr_lightning needs Python 3.11 or later; set PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) --editable '.[$(EXTRAS)]' $(CONSTRAINTS)
	@touch $@

setup: $(STAMP) ## create .venv with the package and its development tools

demo: $(STAMP) ## make videos, pretrain on them without labels, evaluate and finetune, write pages (ARGS="data.root=...")
	$(BIN)/python -m vclr_lightning.train +experiment=demo $(ARGS)

test: $(STAMP) ## run the tests (ARGS="tests/core -k queue"), on all cores (JOBS=0 for one process)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --maxprocesses 8 --dist loadfile $(ARGS)

test-python: ## run the tests on another interpreter, in .venv-VERSION (PYTHON=python3.13)
	$(MAKE) test VENV=.venv-$(MINOR)

test-lowest: ## run the tests with the oldest versions that pyproject.toml allows, in .venv-lowest
	mkdir -p .venv-lowest
	$(PYTHON) .ci/lowest.py > .venv-lowest/constraints.txt
	$(MAKE) test VENV=.venv-lowest EXTRAS=test CONSTRAINTS='--constraint .venv-lowest/constraints.txt' \
	  ARGS='-W default $(ARGS)' # old packages warn about new ones

# Without PyTorch, which is gigabytes: for the readers, PyAV's version is what matters.
test-readers: ## run the readers' tests on another interpreter, with the newest PyAV (PYTHON=python3.13)
	test -x .venv-readers-$(MINOR)/bin/python || $(PYTHON) -m venv .venv-readers-$(MINOR)
	$(MAKE) _readers VENV=.venv-readers-$(MINOR)

.PHONY: _readers
_readers:
	$(PIP) --upgrade av numpy pyarrow fsspec Pillow PyYAML rich pytest hypothesis
	PYTHONPATH=src:. OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/data/readers src/vclr_lightning/data/readers $(ARGS)

check: $(STAMP) ## lint, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

gpu-check: $(STAMP) ## check and measure on a GPU, in 8 minutes; results in outputs/gpu (ARGS=--tiny to try it on a CPU)
	$(BIN)/python -m benchmarks.gpu $(ARGS)

bench: $(STAMP) ## measure the speed claims, each against a named baseline in the same run
	$(BIN)/python -m benchmarks $(ARGS)

wheel: $(STAMP) ## build dist/*.tar.gz, and dist/*.whl from it
	$(BIN)/python -m build

docs: $(STAMP) ## build the documentation into site/
	$(PIP) --editable '.[docs]'
	$(BIN)/mkdocs build --strict

clean: ## remove .venv, caches and built files (never outputs/)
	rm -rf $(VENV) .venv-* build dist site *.egg-info src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
