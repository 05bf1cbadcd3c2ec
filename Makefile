# Recipes only call Python: what stands in DATASET, NAME, ARGS and the like reaches it through the environment, unread by
# a shell. $(value ...) takes the text as typed, so that make does not expand it either; and only what was typed after
# make counts, since names like NAME or DIR may be in anyone's environment for another reason.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PUBLISH := .venv-publish

typed = $(if $(filter command,$(origin $1)),$(value $1),$2)
override CSBP_DATASET := $(call typed,DATASET,digits)
override CSBP_NAME := $(call typed,NAME)
override CSBP_FRESH := $(call typed,FRESH)
override CSBP_ARGS := $(call typed,ARGS)
override CSBP_GRID := $(call typed,GRID)
override CSBP_FROM := $(call typed,FROM)
override CSBP_DIR := $(call typed,DIR)
override CSBP_DATA_DIR := $(call typed,DATA_DIR)
export CSBP_DATASET CSBP_NAME CSBP_FRESH CSBP_ARGS CSBP_GRID CSBP_FROM CSBP_DIR CSBP_DATA_DIR
unexport DATASET NAME FRESH ARGS GRID FROM DIR DATA_DIR

# Fresh buffers cost page faults: keep freed memory, in huge pages. It saved 2 to 5 % of a convolutional step on two
# cores; a benchmark, whose buffers are larger, measures little else without it. No effect where malloc is not glibc's.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1000000000000

.DEFAULT_GOAL := help
.PHONY: help setup data train sweep demo test test-slow bench bench-data h100 parity accuracy lint docs wheel lock clean

help:  ## This list
	@echo "csbp_jax: chaotic spiking backpropagation in JAX"
	@echo
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12
	@echo
	@echo 'Options of train: DATASET=digits  NAME=my-run  FRESH=1  ARGS="--chaos.z0 0 --epochs 5"'
	@echo 'Options of sweep: GRID="chaos.z0=0,3,10,30 seed=0:8" and those of train'
	@echo 'Options of data:  DATASET=cifar10  FROM=directory-of-raw-files'
	@echo 'Options of both:  DATA_DIR=data (where prepared data are kept)  DATASET=folder DIR=your-class-folders'
	@echo 'All of ARGS:      make setup && $(RUN) -m csbp_jax train digits --help'

$(VENV)/.installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4) and "csbp_jax needs Python 3.11.4 or newer, and $(PYTHON) is " + sys.version.split()[0] + "; name another one: make PYTHON=python3.12")'
	@echo "installing requirements.txt into $(VENV) (once, some minutes)"
	@$(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

setup: $(VENV)/.installed  ## Install the pinned requirements into .venv (the others do it by themselves)

data: setup  ## Prepare and verify a data set (DATASET, FROM, DATA_DIR, ARGS)
	@$(RUN) -m csbp_jax data --environment

train: setup  ## Train a spiking network with CSBP (DATASET, NAME, FRESH, DATA_DIR, ARGS)
	@$(RUN) -m csbp_jax train --environment

sweep: setup  ## Train every member of a grid (DATASET, GRID, NAME, FRESH, DATA_DIR, ARGS)
	@$(RUN) -m csbp_jax sweep --environment

demo: setup  ## The authors' one-neuron experiment, as a figure
	@$(RUN) -m experiments.one_neuron

test: setup  ## The fast tests
	@$(RUN) -m pytest -q -n 2

test-slow: setup  ## The slow tests
	@XLA_FLAGS="$$XLA_FLAGS" $(RUN) -m pytest -q -m slow

bench: setup  ## Speed beside other libraries, into docs/results/bench (ARGS="--quick")
	@$(RUN) -m benchmarks.run --environment

bench-data: export GLIBC_TUNABLES := $(GLIBC_TUNABLES):glibc.malloc.arena_max=1
bench-data: setup  ## Speed of the data pipeline, into docs/results/data
	@$(RUN) -m benchmarks.data_images
	@$(RUN) -m benchmarks.data_events
	@$(RUN) -m benchmarks.data_device
	@$(RUN) -m benchmarks.data_page

h100: setup  ## The neuron and training steps compiled for an H100, without one, into docs/results/bench
	@$(RUN) -m benchmarks.h100

parity: setup  ## Networks and recipes against what PyTorch twins gave, into docs/results/parity
	@$(RUN) -m experiments.parity

accuracy: setup  ## CSBP and plain backpropagation on digits, 10 paired seeds, into docs/results/digits
	@$(RUN) -m experiments.accuracy digits

lint: setup  ## Style and types
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy

$(PUBLISH)/.installed: requirements-publish.txt
	@$(PYTHON) -m venv $(PUBLISH)
	@$(PUBLISH)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-publish.txt
	@touch $@

$(PUBLISH)/npm/.installed: $(PUBLISH)/.installed tools/npm/package-lock.json
	@mkdir -p $(PUBLISH)/npm
	@cp tools/npm/package.json tools/npm/package-lock.json $(PUBLISH)/npm
	@$(PUBLISH)/bin/npm ci --silent --no-audit --no-fund --prefix $(PUBLISH)/npm
	@touch $@

docs: export NO_MKDOCS_2_WARNING := 1
docs: $(PUBLISH)/npm/.installed  ## The documentation as a site, into site/; a broken link fails
	@$(PUBLISH)/bin/python -m mkdocs build --strict
	@echo site/index.html

wheel: $(PUBLISH)/.installed  ## Source distribution and wheel, into dist/
	@$(PUBLISH)/bin/python -m build --quiet

lock: setup  ## Write the requirements anew from the ranges of pyproject.toml
	@$(RUN) -m pip install --quiet uv
	@head -n 1 requirements.txt > requirements.txt.part
	@$(RUN) -m uv pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 --no-header \
	  --no-annotate --no-emit-index-url --extra events --extra images --extra plugin --extra tensorboard --extra dev pyproject.toml >> requirements.txt.part
	@mv requirements.txt.part requirements.txt
	@head -n 1 requirements-publish.txt > requirements-publish.txt.part
	@$(RUN) -m uv pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 --no-header \
	  --no-annotate --no-emit-index-url --group publish >> requirements-publish.txt.part
	@mv requirements-publish.txt.part requirements-publish.txt

clean:  ## Remove .venv and caches; runs stay
	@rm -rf $(VENV) $(PUBLISH) .pytest_cache .ruff_cache .mypy_cache
