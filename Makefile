# Set-up and checks. Each target does everything that a fresh machine needs; the environment is made once.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: demo test lint types check bench plots clean

demo: $(VENV)/.installed ## install, and profile EfficientFormerV2-S1 for an iPhone 12
	$(BIN)/vitscope profile specs/efficientformerv2_s1.yaml --device iphone12 --by stage

test: $(VENV)/.installed-dev lint types ## the whole suite
	$(BIN)/python -m pytest -n auto

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/pyright

bench: $(VENV)/.installed-dev ## speed and counts against other tools; writes benchmarks/results.md
	$(BIN)/python -m benchmarks

plots: $(VENV)/.installed ## draw every figure in plots/ again
	PATH="$(CURDIR)/$(BIN):$$PATH" sh plots/make.sh

clean:
	rm -rf $(VENV) build dist *.egg-info

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "vitscope needs Python 3.10 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

# torch comes first and pinned: left to the resolver, it may bring gigabytes of CUDA.
$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
