# `make` lists the targets. Each does its own set-up, once: a virtual environment with pinned packages.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
# As many as there are cores in a small machine.
PROCESSES ?= 2
MINUTES ?= 10
SEED ?= 1

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs --quiet build --strict
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.DEFAULT_GOAL := help
.PHONY: help demo test lint types docs bench torture clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "PYTHON=python3.13 chooses the interpreter (now: $(PYTHON)), ARGS=... goes to the command."

demo: $(STAMP) ## Execute real tasks under every diagnostic, and serve what they left
	$(BIN)/dramatiq-diag demo $(ARGS)

test: $(STAMP) ## Run the tests in so many PROCESSES (2); what needs a service that is missing here is skipped
	$(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist worksteal $(ARGS)

lint: $(STAMP) ## Check style, format, which module imports which, and the documentation's links
	$(BIN)/ruff check $(ARGS) .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(MKDOCS)
	$(BIN)/python docs/check_site.py site

types: $(STAMP) ## Check types
	$(BIN)/mypy $(ARGS)

docs: $(STAMP) ## Write the generated pages anew, and build the documentation into site/
	$(BIN)/python docs/generate.py
	$(MKDOCS)
	$(BIN)/python docs/check_site.py site

bench: $(STAMP) ## Measure every budget of docs/benchmarks.md; takes about an hour, and writes bench.json
	$(BIN)/python -m bench $(ARGS)

torture: $(STAMP) ## Kill workers and take their store away for MINUTES (10), in the order of SEED (1), and account for every task
	$(BIN)/python -m torture --minutes $(MINUTES) --seed $(SEED) $(ARGS)

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build dist site

# pip is brought up first: the one of a fresh environment may not know dependency groups.
$(STAMP): pyproject.toml constraints.txt
	@echo "Setting up $(VENV); this happens once."
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=...") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) --constraint constraints.txt --upgrade pip
	$(PIP) --constraint constraints.txt --build-constraint constraints.txt --editable '.[all]' --group dev
	@touch $@
