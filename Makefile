# make run    the service, on SQLite and the shipped model: http://127.0.0.1:8000
# make test   every test but those that need a CUDA card
# make setup  .venv with the service and the trainer, and nothing more
# make check  style, types, import rules
# make bench  side-by-side benchmarks
# make crash  kill the service at random, 100 times on each database, and check it
# make compose  docker compose up, index, search, down and up, upgrade, three processes
# make sanitize, make fuzz, make neon   the C++ against plain loops: with address and
#             undefined-behaviour sanitizers; the scan under clang's fuzzer, and for ARM under qemu
# make gpu    on a machine with a card: CUDA tests, the scan measured, models trained; docs/gpu.png
#
# All but these last four set up .venv by themselves, from Python 3.11 or newer.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= runs/gpu
SECONDS ?= 60
KERNEL := gpq/scan/native/src
WINOGRAD := gpq/winograd/src
SHARED := gpq/native/src
KERNEL_SOURCES := $(filter-out %/api.cc,$(wildcard $(KERNEL)/*.cc))
KERNEL_CHECK := tests/native/check.cc $(KERNEL_SOURCES) -I$(KERNEL) -I$(SHARED) -std=c++17 -ffp-contract=off
WINOGRAD_CHECK := tests/native/winograd.cc $(filter-out %/api.cc,$(wildcard $(WINOGRAD)/*.cc)) \
  -I$(WINOGRAD) -I$(SHARED) -std=c++17 -ffp-contract=fast
SANITIZED := -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all
SUDOLESS_APT := $(shell test "$$(id -u)" = 0 && command -v apt-get)

.PHONY: run setup test check bench compose crash sanitize fuzz neon gpu system
.DELETE_ON_ERROR:

run: $(VENV)/run.stamp
	@exec $(BIN)/python -m service

setup: $(VENV)/run.stamp

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
	$(CXX) $(SANITIZED) $(WINOGRAD_CHECK) -o runs/sanitized-winograd
	runs/sanitized $(SECONDS)
	runs/sanitized-small $(SECONDS)
	runs/sanitized-winograd $(SECONDS)

fuzz:
	@mkdir -p runs
	clang++ $(SANITIZED) -fsanitize=fuzzer -DLIBFUZZER -DGPQ_SMALL $(KERNEL_CHECK) -o runs/fuzzed
	runs/fuzzed -max_total_time=$(SECONDS)

# Debian: g++-aarch64-linux-gnu and qemu-user.
neon:
	@mkdir -p runs
	aarch64-linux-gnu-g++ -static -O2 -DGPQ_SMALL $(KERNEL_CHECK) -o runs/neon
	qemu-aarch64 runs/neon $(SECONDS)

# No set-up: a machine with a card brings its own torch.
gpu:
	$(PYTHON) -m bench.gpu --out $(OUT) $(ARGS)

$(VENV)/pip.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than 3.11; give a newer one: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { test -n "$(SUDOLESS_APT)" && \
	  apt-get update -q && apt-get install -qy python3-venv; } || \
	  { echo "error: $(PYTHON) has no ensurepip; install it (Debian: python3-venv)"; exit 1; }
	@command -v $(CXX) >/dev/null || { test -n "$(SUDOLESS_APT)" && \
	  apt-get update -q && apt-get install -qy --no-install-recommends g++; } || \
	  echo "note: no C++ compiler, so nothing native; all will be slower"
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/run.stamp: $(VENV)/pip.stamp pyproject.toml setup.py constraints.txt $(wildcard $(KERNEL)/* $(WINOGRAD)/* $(SHARED)/*)
	$(BIN)/pip install -q -c constraints.txt -e .[train]
	@touch $@

$(VENV)/dev.stamp: $(VENV)/pip.stamp pyproject.toml setup.py constraints.txt $(wildcard $(KERNEL)/* $(WINOGRAD)/* $(SHARED)/*)
	$(BIN)/pip install -q -c constraints.txt -e .[dev]
	@touch $@ $(VENV)/run.stamp

$(VENV)/bench.stamp: $(VENV)/pip.stamp pyproject.toml setup.py constraints.txt $(wildcard $(KERNEL)/* $(WINOGRAD)/* $(SHARED)/*)
	$(BIN)/pip install -q -c constraints.txt -e .[bench]
	@touch $@

# The server and the browser of the test groups that need them; without root they are skipped.
system:
ifneq ($(SUDOLESS_APT),)
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 && command -v chromium >/dev/null || \
	  { apt-get update -q && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -qy --no-install-recommends postgresql chromium fonts-dejavu-core; }
endif
