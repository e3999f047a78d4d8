# Everything that is done with a clone: `make demo`, `make test`, `make help`. GNU make 3.81 (macOS) or newer.
#
#   TORCH_INDEX=URL   take torch from this package index (the CPU build, say)
#   CONSTRAINTS=      take newer packages than those in constraints.txt
#   PYTHON=python3.12 the Python to make the environment from (3.11 or newer)
#   WORKERS=4         processes that run the tests
#   SYMLAB_TEST_DATA=FOLDER  published data sets, for the tests that read them (else lab/data)

VENV := .venv
CONSTRAINTS ?= constraints.txt
TORCH_INDEX ?=
WORKERS ?= logical
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	  $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)

RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check install --quiet
PINS := $(addprefix --constraint ,$(CONSTRAINTS))
LAB := $(VENV)/installed
DEV := $(VENV)/installed-dev

.PHONY: help demo test test-fast browser lint format types docs bench clean

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(LAB) ## Train, align and compare networks on digits, then serve the lab
	@$(VENV)/bin/symlab demo

test: $(DEV) ## Run every test, fast and slow
	$(RUN) -m pytest --numprocesses $(WORKERS) --maxprocesses 4 --dist worksteal

test-fast: $(DEV) ## Run the fast tests
	$(RUN) -m pytest --numprocesses $(WORKERS) --maxprocesses 4 --dist worksteal -m 'not slow'

browser: $(DEV) ## Download a Chromium for the browser tests
	$(RUN) -m playwright install chromium

lint: $(DEV) ## Check style, format and the direction of imports
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(VENV)/bin/lint-imports

format: $(DEV) ## Mend style and format
	$(RUN) -m ruff check --fix
	$(RUN) -m ruff format

types: $(DEV) ## Check types
	$(RUN) -m mypy

docs: $(DEV) ## Rewrite the parts of docs/ that follow from the code
	$(RUN) docs/generate.py

bench: $(DEV) ## Run the benchmarks; benchmarks/README.md holds measured numbers
	@set -e; for file in benchmarks/[a-z]*.py; do echo "== $$file"; $(RUN) $$file; done

clean: ## Remove the environment and caches; the lab folder stays
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find app jobs symcore tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# One install, and one more whenever what it depends on changes. Torch comes first and alone when it has an index
# of its own, so that everything else still comes from the usual one. PYTHONWARNINGS silences setuptools' note on what
# an editable install is.
$(LAB): pyproject.toml $(CONSTRAINTS)
	@test -n "$(PYTHON)" || { echo 'No Python 3.11 or newer found. Name one: make demo PYTHON=/path/to/python3'; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade 'pip>=25.1'
	$(if $(TORCH_INDEX),$(PIP) $(PINS) --index-url $(TORCH_INDEX) --no-deps torch)
	PYTHONWARNINGS=ignore $(PIP) $(PINS) --editable .
	@touch $@

$(DEV): $(LAB)
	$(PIP) $(PINS) --group dev
	@touch $@
