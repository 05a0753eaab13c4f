# `make` lists the targets. Each sets up what it needs in $(VENV), once.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
STAMP := $(VENV)/.vclr-ready
ARGS ?=
JOBS ?= logical

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format bench wheel docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "vclr_lightning needs Python 3.11 or later; set PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,bench]'
	@touch $@

setup: $(STAMP) ## create .venv with the package and its development tools

demo: $(STAMP) ## make videos, pretrain on them without labels, evaluate and finetune, write pages (ARGS="data.root=...")
	$(BIN)/python -m vclr_lightning.train +experiment=demo $(ARGS)

test: $(STAMP) ## run the tests (ARGS="tests/core -k queue"), on all cores (JOBS=0 for one process)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --maxprocesses 8 --dist loadfile $(ARGS)

check: $(STAMP) ## lint, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## measure the speed claims, each against a named baseline in the same run
	$(BIN)/python -m benchmarks $(ARGS)

wheel: $(STAMP) ## build dist/*.whl
	$(BIN)/python -m build --wheel

docs: $(STAMP) ## build the documentation into site/
	$(BIN)/python -m pip install --quiet --disable-pip-version-check '.[docs]'
	$(BIN)/mkdocs build --strict

clean: ## remove .venv, caches and built files (never outputs/)
	rm -rf $(VENV) build dist site *.egg-info src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
