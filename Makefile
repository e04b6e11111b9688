# The commands that people need. Each works after `make setup`, in the project's own environment `.venv`.
BIN := .venv/bin

.PHONY: setup test test-all lint types

setup: ## the environment: triptych editable, test and lint tools
	python3.11 -m venv .venv
	$(BIN)/pip install -q uv
	$(BIN)/uv pip install -q -p .venv -c constraints.txt -e '.[facemesh]' --group test --group lint

test: ## the default suite
	$(BIN)/python -m pytest

test-all: ## the default suite, then the slow tests and those that kill runs
	$(BIN)/python -m pytest
	$(BIN)/python -m pytest -m slow
	$(BIN)/python -m pytest -m faults tests/faults

lint: ## style of code and docstrings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: ## mypy checks the package as a wheel installs it
	rm -rf build
	$(BIN)/uv pip install -q --no-deps --target build/types .
	MYPYPATH=build/types $(BIN)/mypy -p triptych
