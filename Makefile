# Recipes only call Python. Values of DATASET, NAME, ARGS and so on reach it through the environment, so that no shell
# interprets them. $(value ...) keeps make from expanding them, too. Only values given on make's command line count:
# variables named NAME or DIR may be in the environment for another reason.
#
# The variables of make itself and of libraries keep their names, so those typed are defined again by their own values.
override OTHERS := PYTHON VENV PUBLISH TRACKERS XLA_FLAGS GLIBC_TUNABLES
$(foreach v,$(OTHERS),$(if $(filter command,$(origin $v)),$(eval override $v := $$(value $v))$(eval export $v)))

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PUBLISH := .venv-publish
TRACKERS := .venv-trackers

typed = $(if $(filter command,$(origin $1)),$(value $1),$2)
override CSBP_DATASET := $(call typed,DATASET,$(if $(call typed,DIR),folder,digits))
override CSBP_NAME := $(call typed,NAME)
override CSBP_FRESH := $(call typed,FRESH)
override CSBP_ARGS := $(call typed,ARGS)
override CSBP_GRID := $(call typed,GRID)
override CSBP_FROM := $(call typed,FROM)
override CSBP_DIR := $(call typed,DIR)
override CSBP_DATA_DIR := $(call typed,DATA_DIR)
export CSBP_DATASET CSBP_NAME CSBP_FRESH CSBP_ARGS CSBP_GRID CSBP_FROM CSBP_DIR CSBP_DATA_DIR
unexport DATASET NAME FRESH ARGS GRID FROM DIR DATA_DIR ACCELERATOR

# JAX's plugin for an accelerator: the one that was typed, or else the one that a file in .venv remembers. Without either,
# JAX computes on the CPU and no plugin is installed.
override ACCELERATORS := cpu cuda12 cuda13 tpu
override REMEMBERED := $(firstword $(patsubst $(VENV)/.accelerator-%,%,$(wildcard $(VENV)/.accelerator-*)))
override ACCELERATOR := $(call typed,ACCELERATOR,$(or $(REMEMBERED),cpu))
$(if $(filter-out 1,$(words $(ACCELERATOR)))$(filter-out $(ACCELERATORS),$(ACCELERATOR)),$(error ACCELERATOR is one of $(ACCELERATORS), not "$(ACCELERATOR)"))
override PLUGIN := $(if $(REMEMBERED)$(filter-out cpu,$(ACCELERATOR)),$(VENV)/.accelerator-$(ACCELERATOR))

# Keep freed memory, in huge pages: XLA on CPU takes new buffers at each step, and these cost page faults. Without glibc's
# malloc it has no effect.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1000000000000:glibc.malloc.arena_max=1

# A misspelt one would train something else than was asked for.
override VARIABLES := DATASET NAME FRESH ARGS GRID FROM DIR DATA_DIR ACCELERATOR $(OTHERS)
override UNKNOWN := $(filter-out $(VARIABLES),$(foreach v,$(.VARIABLES),$(if $(filter command,$(origin $v)),$v)))
$(if $(UNKNOWN),$(error $(UNKNOWN): make has no such variable; it has $(VARIABLES); other options of the program go into ARGS: make train ARGS="--epochs 1 --seed 3"))

.DEFAULT_GOAL := help
.PHONY: help setup data train sweep demo test test-all test-slow test-trackers bench bench-data device device-peers h100 tpu parity accuracy lint docs wheel lock clean

help:  ## Show this list
	@echo "csbp_jax: chaotic spiking backpropagation in JAX"
	@echo
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 15
	@echo
	@echo 'Options of train: DATASET=digits  NAME=my-run  FRESH=1  ARGS="--chaos.z0 0 --epochs 5"'
	@echo 'Options of sweep: GRID="chaos.z0=0,3,10,30 seed=0:8" and the options of train'
	@echo 'Options of data:  DATASET=cifar10  FROM=directory-of-raw-files'
	@echo 'Options of all:   DATA_DIR=data (prepared data sets)  DATASET=folder DIR=your-class-folders'
	@echo '                  ACCELERATOR=cuda12, cuda13, tpu or cpu (installs JAX for it, once; later commands remember it)'
	@echo 'All of ARGS:      make setup && $(VENV)/bin/csbp_jax train digits --help-all'

# compat installs the package as a path of sys.path. The default is a finder that Python asks last: a script beside the
# clone would then import the clone's folder, which has the package's name.
$(VENV)/.installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4) and "csbp_jax needs Python 3.11.4 or newer, but $(PYTHON) is " + sys.version.split()[0] + "; choose another one: make PYTHON=python3.13")'
	@echo "installing requirements.txt and csbp_jax into $(VENV) (once; a minute or two)"
	@$(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.txt
	@$(RUN) -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --config-settings editable_mode=compat --editable .
	@touch $@

# pip resolves the extra to the plugin of the JAX that is pinned. Another accelerator's plugin would still be found by JAX.
override PLUGINS_cuda12 := jax-cuda12-plugin jax-cuda12-pjrt
override PLUGINS_cuda13 := jax-cuda13-plugin jax-cuda13-pjrt
override PLUGINS_tpu := libtpu
$(VENV)/.accelerator-%: $(VENV)/.installed
	@echo "installing JAX for $* into $(VENV) (once)"
	@$(RUN) -m pip uninstall --quiet --disable-pip-version-check --yes $(foreach a,$(filter-out $*,$(ACCELERATORS)),$(PLUGINS_$a))
	@$(if $(filter cpu,$*),,$(RUN) -m pip install --quiet --disable-pip-version-check "jax[$*]")
	@rm -f $(VENV)/.accelerator-*
	@touch $@

setup: $(VENV)/.installed $(PLUGIN)  ## Install the pinned requirements and csbp_jax into .venv (the other targets do this themselves)

data: setup  ## Prepare and verify a data set (DATASET, FROM, DATA_DIR, ARGS)
	@$(RUN) -m csbp_jax data --environment

train: setup  ## Train a spiking network with CSBP (DATASET, NAME, FRESH, DATA_DIR, ARGS)
	@$(RUN) -m csbp_jax train --environment

sweep: setup  ## Train every member of a grid (DATASET, GRID, NAME, FRESH, DATA_DIR, ARGS)
	@$(RUN) -m csbp_jax sweep --environment

demo: setup  ## Draw the one-neuron experiment of the paper
	@$(RUN) -m experiments.one_neuron

TEST := $(RUN) -m pytest -q --durations=10 -n

test: setup  ## Run the fast tests: each behaviour has one here
	@$(TEST) auto --maxprocesses 8

test-all: setup  ## Run all tests but the slow ones: whole studies, large rows of tables, code of pages, too
	@$(TEST) auto --maxprocesses 8 -m 'not slow'

test-slow: setup  ## Run the slow tests
	@XLA_FLAGS="$$XLA_FLAGS" $(TEST) 2 -m slow

# The packages of .venv serve as well: the versions of shared packages, except for Pillow's, are the same.
$(TRACKERS)/.installed: requirements-trackers.txt $(VENV)/.installed
	@$(PYTHON) -m venv $(TRACKERS)
	@$(TRACKERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-trackers.txt
	@$(RUN) -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $(TRACKERS)/main.pth
	@mv $(TRACKERS)/main.pth $(TRACKERS)/lib/python3.*/site-packages
	@touch $@

test-trackers: $(TRACKERS)/.installed  ## Test the trackers (W&B, MLflow, trackio), offline
	@$(TRACKERS)/bin/python -m pytest -q --durations=5 tests/evaluation/test_trackers.py

bench: setup  ## Measure speed against other libraries, into docs/checks/bench (ARGS="--quick")
	@$(RUN) -m benchmarks.run --environment

bench-data: setup  ## Measure the speed of the data pipeline, into docs/checks/data
	@$(RUN) -m benchmarks.data_speed

h100: setup  ## Compile the neuron and training steps for an H100, without one, into docs/checks/bench
	@$(RUN) -m benchmarks.h100

device-peers: setup  ## Install SpikingJelly, with torch, beside which make device times a step (some 3 GB)
	@$(RUN) -m benchmarks.peers --only spikingjelly

device: setup  ## Check and measure a GPU or TPU in 40 minutes, into .bench/device: a page to send (ARGS="--small"; resumes)
	@$(RUN) -m benchmarks.device --environment

tpu: setup  ## Compile training steps for TPU slices, without one, into docs/checks/bench (many hours; resumes)
	@$(RUN) -m benchmarks.tpu

parity: setup  ## Compare networks and recipes with PyTorch references, into docs/checks/parity
	@$(RUN) -m experiments.parity

accuracy: setup  ## Compare CSBP with plain backpropagation on digits, 10 paired seeds, into docs/results/presets/digits
	@$(RUN) -m experiments.accuracy digits

lint: setup  ## Check style and types
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy

$(PUBLISH)/.installed: requirements-publish.txt
	@$(PYTHON) -m venv $(PUBLISH)
	@$(PUBLISH)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-publish.txt
	@touch $@

docs: export NO_MKDOCS_2_WARNING := 1
docs: $(PUBLISH)/.installed  ## Build the documentation site, into site/; a broken link fails
	@$(PUBLISH)/bin/python -m mkdocs build --strict
	@echo site/index.html

wheel: $(PUBLISH)/.installed  ## Build source distribution and wheel, into dist/
	@$(PUBLISH)/bin/python -m build --quiet

# For each Python its newest versions, and the digest of every file.
LOCK := -m uv pip compile --quiet --universal --python-version 3.11.4 --no-header --no-annotate --no-emit-index-url --generate-hashes

lock: setup  ## Pin the requirements within the ranges of pyproject.toml
	@$(RUN) -m pip install --quiet uv
	@head -n 1 requirements.txt > requirements.txt.part
	@$(RUN) $(LOCK) --extra dev pyproject.toml >> requirements.txt.part
	@mv requirements.txt.part requirements.txt
	@head -n 1 requirements-oldest.txt > requirements-oldest.txt.part
	@$(RUN) $(LOCK) --extra train --group oldest pyproject.toml >> requirements-oldest.txt.part
	@mv requirements-oldest.txt.part requirements-oldest.txt
	@head -n 1 requirements-publish.txt > requirements-publish.txt.part
	@$(RUN) $(LOCK) --group publish >> requirements-publish.txt.part
	@mv requirements-publish.txt.part requirements-publish.txt
	@head -n 1 requirements-trackers.txt > requirements-trackers.txt.part
	@sed '/^pillow==/,/[^\\]$$/d' requirements.txt > constraints.txt.part  # trackio takes no newer one than 12
	@$(RUN) $(LOCK) --constraint constraints.txt.part --group trackers >> requirements-trackers.txt.part
	@mv requirements-trackers.txt.part requirements-trackers.txt
	@rm constraints.txt.part

clean:  ## Remove .venv and caches, but no runs
	@rm -rf $(VENV) $(PUBLISH) $(TRACKERS) .pytest_cache .ruff_cache .mypy_cache
