# make run       runs the service with SQLite and the shipped model on http://127.0.0.1:8000
# make test      runs all tests except those that need a CUDA device
# make setup     installs the service and the trainer into .venv; the trainer needs PyTorch
# make check     checks style, types and import rules
# make bench     measures the scan beside faiss
# make crash     kills the service at random moments, 100 times on each database, and checks it
# make compose   tests docker-compose.yml: index, search, down and up, upgrade, three processes
# make sanitize  compares the C++ code with plain loops under address and undefined-behaviour
#                sanitizers
# make fuzz      compares the scan's C++ code with plain loops under clang's fuzzer
# make fuzz-input    damages images, archives, manifests, index files and requests at random, and checks
#                that the service only ever accepts or refuses them
# make neon      compares the scan's C++ code for ARM with plain loops under qemu
# make sbom      lists the installed packages, with versions and licences (CycloneDX), in runs/sbom.json
# make audit     looks all pinned packages up in the list of known weaknesses; needs pypi.org
# make gpu       on a machine with a CUDA device: runs the CUDA tests, measures the scan, trains
#                models and draws docs/gpu.png
#
# Every target except sanitize, fuzz, neon and gpu creates .venv first; it needs Python 3.11 or newer.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= runs/gpu
SECONDS ?= 60
INSTALL := $(BIN)/pip install -q -c constraints.txt
KERNEL := gpq/scan/native/src
SHARED := gpq/native/src
KERNEL_SOURCES := $(filter-out %/api.cc,$(wildcard $(KERNEL)/*.cc))
KERNEL_CHECK := tests/native/check.cc $(KERNEL_SOURCES) -I$(KERNEL) -I$(SHARED) -std=c++17 -ffp-contract=off
INSTALLED := $(VENV)/pip.stamp pyproject.toml setup.py constraints.txt \
  $(wildcard $(KERNEL)/* $(SHARED)/*)
SANITIZED := -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all
SUDOLESS_APT := $(shell test "$$(id -u)" = 0 && command -v apt-get)

.PHONY: run setup test check bench compose crash sanitize fuzz fuzz-input neon sbom audit gpu system
.DELETE_ON_ERROR:

run: $(VENV)/run.stamp
	@exec $(BIN)/python -m service

setup: $(VENV)/train.stamp

test: $(VENV)/dev.stamp system
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not cuda" $(ARGS)

check: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/bench.stamp
	$(BIN)/python -m bench.scan $(ARGS)

crash: $(VENV)/dev.stamp system
	$(BIN)/python -m tests.crash --database sqlite $(ARGS)
	$(BIN)/python -m tests.crash --database postgres $(ARGS)

compose: $(VENV)/dev.stamp
	$(BIN)/python -m tests.compose

sanitize:
	@mkdir -p runs
	$(CXX) $(SANITIZED) $(KERNEL_CHECK) -o runs/sanitized
	$(CXX) $(SANITIZED) -DGPQ_SMALL $(KERNEL_CHECK) -o runs/sanitized-small
	runs/sanitized $(SECONDS)
	runs/sanitized-small $(SECONDS)

fuzz:
	@mkdir -p runs
	clang++ $(SANITIZED) -fsanitize=fuzzer -DLIBFUZZER -DGPQ_SMALL $(KERNEL_CHECK) -o runs/fuzzed
	runs/fuzzed -max_total_time=$(SECONDS)

fuzz-input: $(VENV)/dev.stamp
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(ARGS)

# Needs the Debian packages g++-aarch64-linux-gnu and qemu-user.
neon:
	@mkdir -p runs
	aarch64-linux-gnu-g++ -static -O2 -DGPQ_SMALL $(KERNEL_CHECK) -o runs/neon
	qemu-aarch64 runs/neon $(SECONDS)

sbom: $(VENV)/dev.stamp
	@mkdir -p runs
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-format JSON \
	  --output-file runs/sbom.json $(BIN)/python

audit: $(VENV)/dev.stamp
	$(BIN)/pip-audit --strict -r constraints.txt --no-deps --disable-pip

# Does not create .venv: a machine with a CUDA device usually comes with its own build of torch.
gpu:
	$(PYTHON) -m bench.gpu --out $(OUT) $(ARGS)

$(VENV)/pip.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than 3.11; name a newer one: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { test -n "$(SUDOLESS_APT)" && \
	  apt-get update -q && apt-get install -qy python3-venv; } || \
	  { echo "error: $(PYTHON) has no ensurepip; install it (Debian: python3-venv)"; exit 1; }
	@command -v $(CXX) >/dev/null || { test -n "$(SUDOLESS_APT)" && \
	  apt-get update -q && apt-get install -qy --no-install-recommends g++; } || \
	  echo "note: no C++ compiler was found, so encoding and searching will be slower; install g++"
	$(PYTHON) -m venv $(VENV)
	@touch $@

# What each installs includes what those before it install, so it touches their stamps too.
# The C++ code is compiled while pip downloads and unpacks what the service needs.
$(VENV)/run.stamp: $(INSTALLED) docker/requirements.py
	@$(BIN)/python docker/requirements.py > $(VENV)/requirements.txt
	$(BIN)/pip install -q --no-deps -e . & build=$$!; \
	  $(INSTALL) -r $(VENV)/requirements.txt; status=$$?; wait $$build && exit $$status
	@touch $@

$(VENV)/train.stamp: $(INSTALLED)
	$(INSTALL) -e .[train]
	@touch $(VENV)/run.stamp $@

$(VENV)/dev.stamp: $(INSTALLED)
	$(INSTALL) -e .[dev]
	@touch $(VENV)/run.stamp $(VENV)/train.stamp $@

$(VENV)/bench.stamp: $(INSTALLED)
	$(INSTALL) -e .[bench]
	@touch $(VENV)/run.stamp $(VENV)/train.stamp $(VENV)/dev.stamp $@

# Installs Postgres and Chromium for the tests that need them. It needs root and apt-get; without
# them those tests are skipped.
system:
ifneq ($(SUDOLESS_APT),)
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 && command -v chromium >/dev/null \
	  && command -v ip >/dev/null || \
	  { apt-get update -q && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -qy --no-install-recommends postgresql chromium fonts-dejavu-core iproute2; }
endif
