# Needs make and Python 3.11 or newer; everything else is put into .venv. The second run of anything installs nothing.

VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test slow lint chaos bench install clean

help: ## Show what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.installed ## Run the logistics example on an embedded server
	$(BIN)/python -m examples.logistics

test: $(VENV)/.installed-dev ## Check style, types and floors, then run the tests
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n 3 --dist loadgroup -m "not chaos and not slow"

slow: $(VENV)/.installed-dev ## Run the tests that take longer: command lines, how-tos, measures of time
	$(BIN)/pytest -n 3 --dist loadgroup -m slow

lint: $(VENV)/.installed-dev ## Check style, format, types and floors
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

chaos: $(VENV)/.installed-dev ## Kill real processes for minutes and check the log against the world
	$(BIN)/pytest -m chaos --timeout 1800

bench: $(VENV)/.installed ## Measure the six workloads
	$(BIN)/python -m benchmarks

install: $(VENV)/.installed-dev ## Make .venv with everything a developer needs

clean: ## Remove .venv and all caches; histories under .esexec stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache \
		examples/node/node_modules tests/asyncapi/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@for python in python3.11 python3.12 python3.13 python3.14 python3; do \
		if $$python -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "making $(VENV) with $$($$python --version)"; exec $$python -m venv $(VENV); \
		fi; \
	done; echo "no Python 3.11 or newer (with venv) was found" >&2; exit 1

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(PIP_INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.installed
