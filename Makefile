# On a fresh machine, `make demo` trains and samples, `make test` runs all checks.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo docs test clean

$(BIN)/gcn: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	touch $(BIN)/gcn

$(VENV)/tested: $(BIN)/gcn
	$(PIP) -e .[test]
	touch $@

demo: $(BIN)/gcn
	PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh

test: $(VENV)/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n auto --dist loadfile

docs: $(VENV)/tested
	$(BIN)/python docs/generate_reference.py
	$(BIN)/sphinx-build -W -q -b html docs docs/built

clean:
	rm -rf $(VENV) build docs/built *.egg-info .mypy_cache .ruff_cache .pytest_cache
