# The commands that development needs; CONTRIBUTING.md describes them.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: setup test test-all faults fuzz lint types docs docs-pages

setup: ## install triptych, its tests, its linters and the site's tools into .venv
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q uv
	$(BIN)/uv pip install -q -p .venv -c constraints.txt -e '.[facemesh]' --group test --group lint --group docs

test: ## the default tests
	$(BIN)/python -m pytest

test-all: test ## the default tests, the slow ones, and repeated kills
	$(BIN)/python -m pytest -m slow
	$(BIN)/python -m pytest -n 0 -m faults tests/faults

faults: ## faults that take too long for each change
	$(BIN)/python -m pytest -n 0 -m long_faults tests/faults

fuzz: ## random input to every reader, 10 minutes for each fuzzer
	TRIPTYCH_FUZZ_SECONDS=600 $(BIN)/python -m pytest -m fuzz tests/fuzz

lint: ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: ## mypy, on the package as a wheel installs it
	rm -rf build
	$(BIN)/uv pip install -q --no-deps --target build/types .
	MYPYPATH=build/types $(BIN)/mypy -p triptych

docs-pages: ## the pages that are written from the code
	$(BIN)/python docs/generate.py

docs: ## the documentation as a site, in build/site
	$(BIN)/uv pip install -q -p .venv -c constraints.txt --group docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
