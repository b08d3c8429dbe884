# Everything a user or a continuous-integration machine runs; `make help` lists it.

# Candidates, tried in order; name one with `make venv PYTHON=/path/to/python`.
PYTHON ?= python3.13 python3.12 python3.11 python3
VENV ?= .venv
# Versions that the environment is held to: make venv LOCK=locks/lowest.txt.
LOCK ?=
WORKDIR ?= runs/demo
# A folder below tests, `make test ROOM=s3t`; all of them if empty. More options for pytest: `make test ARGS="-x -k word"`.
ROOM ?=
ARGS ?=
# What `make structure` sets beside the checkout: the last commit before the rooms had folders.
REV ?= e1d275d

# Where `make dist` tries the wheel.
PYTHONS ?= python3.11 python3.12 python3.13

# `make image`: what builds it, its name, and its extras if others than the file's own.
ENGINE ?= docker
TAG ?= forethought
EXTRAS ?=

# What mypy checks.
TYPED := unlearn readiness s3t federated experiments tools

# What the lock of the newest versions is for: all but `weights` and `peers`, which bring torch.
LOCKED := test wandb mlflow docs release cuda tpu

py := $(VENV)/bin/python
held := $(if $(LOCK),--constraint $(LOCK))
stamp := $(VENV)/.installed
docs_stamp := $(VENV)/.docs
release_stamp := $(VENV)/.release
uv_compile := $(VENV)/bin/uv pip compile --quiet --upgrade --python-version 3.11 --no-annotate --custom-compile-command "make lock"
new_enough := import sys; sys.exit(sys.version_info < (3, 11))
# No benchmarks of their own.
parts := $(addprefix %/,$(addsuffix .py,__init__ smoke readiness_torch language_torch s3t_peft))
room = $(if $(wildcard tests/$(ROOM)),tests/$(ROOM),$(error there is no folder tests/$(ROOM): ROOM is unlearn, readiness, \
  s3t, federated, experiments or a folder of theirs))

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1|/p' Makefile | awk -F'|' '{ printf "%-18s%s\n", $$1, $$2 }'

venv: $(stamp)  ## make .venv and install the project into it (done by the other targets when needed)

# uv if there is one (seconds), else pip (about a minute).
$(stamp): setup.cfg pyproject.toml
	@if test -e $(VENV); then \
	  $(py) -c '$(new_enough)' 2>/dev/null || \
	    { echo "error: $(VENV) holds no working Python >= 3.11; remove it and run make again" >&2; exit 1; }; \
	else \
	  for python in $(PYTHON) none; do $$python -c '$(new_enough)' 2>/dev/null && break; done; \
	  test $$python != none || \
	    { echo "error: no Python >= 3.11 among: $(PYTHON). Name one: make venv PYTHON=/path/to/python" >&2; exit 1; }; \
	  echo "Making $(VENV) with $$($$python --version)"; \
	  if command -v uv >/dev/null; then uv venv --quiet --seed --python $$($$python -c 'import sys; print(sys.executable)') $(VENV); \
	  else $$python -m venv $(VENV) >/dev/null 2>&1; fi || \
	    { rm -rf $(VENV); echo "error: $$python cannot make virtual environments; install its venv module" \
	      "(Debian, Ubuntu: apt install python3-venv) or uv" >&2; exit 1; }; \
	fi
	@echo "Installing into $(VENV) (about 1.2 GB; a minute or two)"
	@{ command -v uv >/dev/null && uv pip install --quiet --python $(py) $(held) -e '.[test]'; } || \
	  $(py) -m pip install --quiet --disable-pip-version-check $(held) -e '.[test]'
	@touch $(stamp)

demo: $(stamp)  ## train, forget, compare with retraining, and write a report (WORKDIR=runs/demo)
	@$(VENV)/bin/forethought --config=readiness:digits --workdir="$(WORKDIR)"

# Most of the time of the quick tests goes into compiling programs that run once: XLA may do that badly. The slow tests,
# what they start and the demo are compiled as users compile.
test: $(stamp)  ## the tests, without the slow ones (of a folder: ROOM=s3t)
	JAX_DISABLE_MOST_OPTIMIZATIONS=1 $(py) -m pytest -q -n 2 --dist worksteal -m "not slow" $(ARGS) $(room)

slow: $(stamp)  ## the slow tests (of a folder: ROOM=s3t)
	$(py) -m pytest -q -n 2 -m slow $(ARGS) $(room)

faults: $(stamp)  ## attack stores, workdirs and parsers, and count (about twenty minutes; ARGS="--only kills --seconds 60")
	$(py) -m tests.faults $(ARGS)

lint: $(stamp)  ## style, types and who imports whom
	$(py) -m ruff check .
	$(py) -m ruff format --check .
	$(py) -m mypy $(TYPED)
	$(VENV)/bin/lint-imports --no-logo --no-cache

types: $(stamp)  ## types alone
	$(py) -m mypy $(TYPED)

format: $(stamp)  ## let ruff reformat the code and sort imports
	$(py) -m ruff check --fix-only .
	$(py) -m ruff format .

bench: $(stamp)  ## the benchmarks, one after another (at toy size: ARGS=--smoke)
	@set -e; for file in $(filter-out $(parts),$(wildcard experiments/benchmarks/*.py)); do \
	  echo "== $$file"; $(py) -m $$(echo $${file%.py} | tr / .) $(ARGS); \
	done

# In the same environment, but only when it is asked for.
$(docs_stamp): $(stamp)
	@echo "Installing what builds the site into $(VENV) (about 60 MB; seconds)"
	@{ command -v uv >/dev/null && uv pip install --quiet --python $(py) $(held) -e '.[docs]'; } || \
	  $(py) -m pip install --quiet --disable-pip-version-check $(held) -e '.[docs]'
	@touch $(docs_stamp)

# A link that leads nowhere is a warning, and a warning is an error.
docs: $(docs_stamp)  ## the documentation site: build/site/index.html
	@JAX_PLATFORMS=cpu $(py) -m sphinx --quiet --fresh-env --fail-on-warning -c docs/site . build/site
	@echo "See build/site/index.html"

tables: $(stamp)  ## tables of the docs, written anew from the files that runs wrote (docs/numbers)
	@$(py) -m tools.tables

notebooks: $(stamp)  ## docs/notebooks from experiments/notebooks (run them all into build/notebooks: ARGS=--execute)
	@JAX_PLATFORMS=cpu $(py) -m tools.notebooks $(ARGS)

# Installs Debian's packages of SLURM if they are missing; elsewhere, and if it may not, it says what to install.
slurm: $(stamp)  ## jobs on a real SLURM of this one machine, which it installs where it may (Debian, root; a few minutes)
	@$(py) -m tools.slurm_cluster
	$(py) -m pytest -q -s -p no:xdist $(ARGS) tests/experiments/launch/slurm_test.py

$(release_stamp): $(stamp)
	@{ command -v uv >/dev/null && uv pip install --quiet --python $(py) $(held) -e '.[release]'; } || \
	  $(py) -m pip install --quiet --disable-pip-version-check $(held) -e '.[release]'
	@touch $(release_stamp)

# The lowest are those of Python 3.11, which has no newer JAX; what they need in turn is as new as it may be.
lock: $(release_stamp)  ## the versions that tests and the image are held to, anew: locks/
	@$(uv_compile) --universal $(addprefix --extra ,$(LOCKED)) --output-file locks/newest.txt setup.cfg
	@$(uv_compile) --resolution lowest-direct --extra test --output-file locks/lowest.txt setup.cfg

dist: $(release_stamp)  ## wheel and sdist, tried in empty environments (PYTHONS="python3.12"; ARGS=--notebooks)
	@$(py) -m tools.dist $(PYTHONS) $(ARGS)

image:  ## the container image (ENGINE=podman; EXTRAS=cuda,experiments)
	@command -v $(ENGINE) >/dev/null || { echo "error: $(ENGINE) is missing; name another: make image ENGINE=podman" >&2; exit 1; }
	$(ENGINE) build --file Containerfile $(if $(EXTRAS),--build-arg EXTRAS=$(EXTRAS)) --tag $(TAG) .
	$(ENGINE) run --rm $(TAG) forethought --version

structure: $(stamp)  ## folders, files, lines, imports and what is longest, beside those of REV
	@$(py) -m tools.structure --rev "$(REV)"

.PHONY: help venv demo test slow faults lint types format bench docs notebooks tables lock dist image structure slurm
