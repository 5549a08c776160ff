# The only things this file needs on the machine: git, make, and some Python 3 with `venv`.
# uv (installed into .uv/ when it is not on the PATH) builds .venv/ with Python 3.12 from the pinned requirements.txt.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo demo-train demo-agent play test test-fast test-gpu test-cluster test-all fuzz test-system system-packages lint docs release-check lock clean

VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.installed
BYTECODE := $(VENV)/.compiled
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 12

setup: $(STAMP)  ## Build .venv with every extra (about a minute; a second call does nothing)

.uv/bin/uv:
	python3 -m venv .uv
	.uv/bin/python -m pip install --quiet --disable-pip-version-check uv

$(STAMP): setup.cfg pyproject.toml requirements.txt .python-version | $(filter .uv/bin/uv,$(UV))
	$(UV) --quiet venv --allow-existing --python $$(cat .python-version) $(VENV)
	$(UV) pip install --quiet --python $(PYTHON) --requirement requirements.txt
	$(UV) pip install --quiet --python $(PYTHON) --no-deps --editable .
	@touch $@

# Tests start Python many times. Where it may not keep the bytecode of what it imports (PYTHONDONTWRITEBYTECODE), each start
# would compile PyTorch and transformers again. A few packages carry files for other versions of Python, which do not compile.
$(BYTECODE): $(STAMP)
	@$(PYTHON) -m compileall -q -j 0 $(VENV)/lib src >$@.log 2>&1 || true
	@touch $@

lock:  ## Resolve the pins in requirements.txt again from setup.cfg
	$(UV) pip compile --quiet setup.cfg --all-extras --upgrade --no-header --no-annotate --python $(PYTHON) --output-file requirements.txt

lint: $(STAMP)  ## Check the style of every file: format, names, imports and English
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m pytest -q tests/test_architecture.py tests/test_style.py

docs: $(STAMP)  ## Build the documentation site into outputs/site/
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet

# The wheel is tested outside of this folder, in an environment with only the base dependencies.
release-check: $(STAMP)  ## Build the sdist and the wheel, check them, and run the wheel in a new environment
	rm -rf dist
	$(UV) build --quiet --python $(PYTHON) --out-dir dist
	$(PYTHON) -m twine check --strict dist/*.whl dist/*.tar.gz
	$(PYTEST) -n 0 tests/test_wheel.py

# Two workers of one thread each: tiny models gain nothing from more, and lose much to waiting for each other.
PYTEST := OMP_NUM_THREADS=1 $(PYTHON) -m pytest
PARALLEL := -n 2 --dist loadfile

test: $(BYTECODE)  ## Run the tests, except those that need a browser or an X server (about ten minutes on two cores)
	$(PYTEST) $(PARALLEL)

test-fast: $(BYTECODE)  ## Run the quick tests, for the edit loop (at most 90 seconds on two cores)
	$(PYTEST) $(PARALLEL) -m "not slow and not system and not cluster and not gpu"

test-gpu: $(BYTECODE)  ## Run the tests that need a GPU
	$(PYTEST) -m gpu

fuzz: $(BYTECODE)  ## Damage files of every format; for example: make fuzz FUZZ_SEED=1 FUZZ_TRIES=1000
	OMP_NUM_THREADS=1 FUZZ_SEED=$(FUZZ_SEED) FUZZ_TRIES=$(FUZZ_TRIES) $(PYTHON) tests/fuzz/damage.py

test-cluster: $(BYTECODE)  ## Run the tests that start Ray clusters
	$(PYTEST) -m cluster

test-all: test test-cluster test-system  ## Run all tests (installs chromium, chromium-driver, xvfb and xdotool with apt-get)

test-system: $(BYTECODE) system-packages  ## Run the tests that need a browser or an X server
	$(PYTEST) -m system

# What no Python package brings along: only tests need it.
system-packages:
	@missing=; for program in chromium chromedriver Xvfb xdotool; do \
	    command -v $$program >/dev/null || missing=1; \
	done; \
	if [ -n "$$missing" ]; then \
	    sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	    $$sudo apt-get update -qq; \
	    $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	        chromium chromium-driver xvfb xdotool; \
	fi

demo: $(STAMP)  ## Steer the shipped world: a video and figures in seconds
	$(PYTHON) examples/demo.py

demo-train: $(STAMP)  ## Record, convert, train, load and dream PushT (about twelve minutes on two CPU cores)
	$(PYTHON) examples/demo_train.py

demo-agent: $(STAMP)  ## Give the shipped world an agent, and let it learn in dreams if its rewards are good enough
	$(PYTHON) examples/demo_agent.py

WORLD := pusht-tiny
play: $(STAMP)  ## Play the shipped world, or another one: make play WORLD=outputs/demo-train/world
	$(PYTHON) examples/play.py --model $(WORLD)

clean:  ## Remove the environment and everything that the demo wrote
	rm -rf $(VENV) .uv outputs
