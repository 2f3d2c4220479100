# make setup  install everything into .venv
# make demo   set up, run the memorization study on built-in digits, say where the report is
# make test   set up, run the tests          make verify  the slow tests too, for two seeds
# make lint   formatting, lint and types

PYTHON ?= python3
# Tests wait for processes more than they compute: two files at a time.
PYTEST := -m pytest -n 2 --dist loadfile
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: setup demo test verify lint

setup: $(VENV)/installed

demo: setup
	$(BIN)/python jobs/memorization.py

test: $(VENV)/installed-test
	$(BIN)/python $(PYTEST)

verify: $(VENV)/installed-test
	REGIMES_VERIFY_SEEDS=0,1 $(BIN)/python $(PYTEST) -m "slow or not slow"

lint: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy -p regimes

$(VENV)/bin/python:
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'error: Python 3.11 or newer is needed, this is ' + sys.version)"
	$(PYTHON) -m venv $(VENV)

# One stamp per set of extras: installed again when the project's own pins change.
$(VENV)/installed: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing about 8 GB into $(VENV): five to ten minutes"
	$(PIP) install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(PIP) install --quiet --constraint constraints.txt --editable ".[test]"
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@
