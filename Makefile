PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
# one arithmetic thread per process is the unit of scaling, in tests too
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-browser check docs openapi sbom bench load chaos up lock clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/make \1\t\2/' | expand -t 14

venv: $(VENV)/.installed  ## make .venv with everything that the other targets need

# torch comes after the lock, with its dependencies: its build depends on the platform, and only a CUDA build has more
# dependencies than the lock knows. TORCH_INDEX=https://download.pytorch.org/whl/cpu takes the small CPU build.
$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Setting up $(VENV): the first time this takes a minute or two and 2.5 GB"
	$(PYTHON) -m venv $(VENV)
	$(PIP) --no-deps --require-hashes -r requirements.lock
	$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) '$(TORCH)'
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(VENV)/.demo-installed  ## the main job end to end, on a real model that really forgets
	$(BIN)/python benchmarks/demo/run.py

$(VENV)/.demo-installed: $(VENV)/.installed benchmarks/demo/requirements.lock
	$(PIP) --no-deps --require-hashes -r benchmarks/demo/requirements.lock
	@touch $@

test: venv  ## the tests, on real servers that they start themselves
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

# named otherwise than other tests, so that those who want no browser never collect them
test-browser: $(VENV)/.browser-installed  ## the pages in a real headless Chromium, which it installs or asks for
	CHROMIUM="$$(CHROMIUM=$(CHROMIUM) tests/browser/chromium)" && export CHROMIUM SHOTS="$(SHOTS)" && \
		$(BIN)/python -m pytest -o python_files='browse_*.py' tests/browser $(ARGS)

$(VENV)/.browser-installed: $(VENV)/.installed tests/browser/requirements.lock
	$(PIP) --no-deps --require-hashes -r tests/browser/requirements.lock
	@touch $@

check: venv  ## lint, types, import rules, containers
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m app.api.openapi check docs/openapi.json
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/hadolint docker/*.Dockerfile
	@BIN=$(BIN) docker/audit requirements.lock docker/api.lock docker/worker.lock

openapi: venv  ## write the snapshot of the API's description
	$(BIN)/python -m app.api.openapi write docs/openapi.json

DOCS := .docs
docs: $(DOCS)/.installed  ## the pages of docs/ as a site in site/, every link and anchor checked
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict --clean

$(DOCS)/.installed: docs/requirements.lock
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	@touch $@

sbom: venv  ## bills of materials (CycloneDX) of the locks, in sbom/
	@mkdir -p sbom
	for lock in requirements docker/api docker/worker; do \
		$(BIN)/cyclonedx-py requirements --output-reproducible --of JSON --pyproject pyproject.toml \
			-o sbom/$$(basename $$lock).cdx.json $$lock.lock || exit 1; done

bench: venv  ## benchmarks, side by side with other tools
	$(BIN)/python -m benchmarks $(ARGS)

load: venv  ## the API under many pollers beside a bare route, its queries among 100 000 jobs
	$(BIN)/python -m benchmarks.load $(ARGS)

chaos: venv  ## many jobs while everything is killed at random (ARGS="storm --jobs 40 --seed 7")
	$(BIN)/python -m tests.chaos $(ARGS)

up: venv  ## the whole service on this machine, with a local Hub
	$(BIN)/spear up --local-hub

clean:  ## remove .venv and caches
	rm -rf $(VENV) $(DOCS) site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# Locks: exact versions with hashes. torch stands apart, because its build (CPU, CUDA) depends on the platform.
# The images' locks take the same versions, for the one platform of each image.
UV ?= uv
APART = torch spear-merge triton nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cudnn-cu13 \
	nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse nvidia-cusparselt-cu13 nvidia-nccl-cu13 \
	nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx cuda-bindings cuda-pathfinder cuda-toolkit
COMPILE = $(UV) pip compile pyproject.toml --generate-hashes --no-emit-find-links --quiet $(APART:%=--no-emit-package %)
IMAGE = $(COMPILE) --python-platform x86_64-manylinux_2_28 --constraint requirements.lock

lock:  ## write the locks anew (needs uv)
	$(COMPILE) --universal --python-version 3.11 --extra dev -o requirements.lock
	$(IMAGE) --python-version 3.11 --extra api -o docker/api.lock
	$(IMAGE) --python-version 3.12 --extra worker --extra eval -o docker/worker.lock
