# Everything works on a machine that has Python 3.11+, make and git: the environment is made here, by this file.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
STAMP   = $(VENV)/.installed

.PHONY: help env demo test bench lint clean

help:            ## this list
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | awk -F':.*## *' '{printf "  make %-12s %s\n", $$1, $$2}'

env: $(STAMP)    ## make the virtual environment (pinned by constraints.txt)

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "rushes needs Python 3.11 or newer; set PYTHON=/path/to/python3"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: env        ## curate a small pool of real footage and print what was kept and why
	$(BIN)/rushes demo runs/demo

test: env        ## the tests (under 10 minutes on 2 cores)
	$(BIN)/python -m pytest

bench: env       ## the benchmarks: ratios against a yardstick measured in the same run
	$(BIN)/python -m tests.bench

lint: env        ## ruff
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

clean:           ## remove the environment and the demo's runs
	rm -rf $(VENV) runs build *.egg-info
