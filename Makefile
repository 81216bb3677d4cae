# make demo   compile a real model and run 20 movie reviews through it
# make test   everything that must pass: linter, formatter, types, tests
# make lint   the first three of those
# make test-long  tests that take minutes: networks are trained, more models compiled
# make fuzz   mutated inputs for every reader of files, until Ctrl-C
# make format what the linter and the formatter can put right themselves
# make clean  removes what the others made, the virtual environment and the fetched model included
#
# PYTHON=…    the interpreter to make .venv from (3.11 or later)
# JOBS=…      how many tests run side by side

PYTHON ?= $(shell command -v python3.11 || command -v python3)
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
INSTALLED := $(VENV)/.installed
TOOLS := $(VENV)/.tools

# What pip leaves uncompiled (most of torch is never imported) is compiled at its first import, and kept.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test test-long fuzz lint format clean

help:
	@sed -n 's/^# //p' Makefile

# Made once, and again only when what is to be installed has changed.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "bossa needs Python 3.11 or later: make PYTHON=…")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e '.[compile]'
	@touch $@

$(TOOLS): $(INSTALLED)
	$(PIP) -e '.[compile,dev]'
	@touch $@

demo: $(INSTALLED)
	@$(BIN)/python scripts/demo.py

lint: $(TOOLS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# One thread for each of torch's and numpy's own pools: the tests already run side by side.
test: lint
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m 'not long'

test-long: $(TOOLS)
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -m long

# FUZZ='--reader pef --seed 7' runs one case, --count 1000 so many of each reader.
FUZZ ?= --forever
fuzz: $(TOOLS)
	@nice $(BIN)/python scripts/fuzz.py --jobs $(JOBS) $(FUZZ)

format: $(TOOLS)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .cache out build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
