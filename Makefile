# Everything a checkout needs, on Debian 12 or 13 and Ubuntu 22.04 or newer. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
# Two pips in one environment would get in each other's way.
.NOTPARALLEL:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
# Stamps lie in the environment that they speak of: without it they are gone.
STAMPS := $(VENV)/stamps

BUILD_PACKAGES := python3-venv clang llvm libbpf-dev
TEST_PACKAGES := $(BUILD_PACKAGES) gcc g++ clang-format chromium chromium-driver libcap2-bin \
	iproute2 procps kmod mmdebstrap openssh-client qemu-system-x86 cpio busybox-static e2fsprogs musl-tools \
	binutils btrfs-progs openssl util-linux mount bc curl xz-utils python3-bpfcc linux-headers-amd64 libpython3-dev
BENCH_PACKAGES := $(BUILD_PACKAGES) gcc g++ linux-perf bpfcc-tools bpftrace linux-headers-amd64

BPF_SOURCES := $(wildcard bpf/*.bpf.c)
BPF_OBJECTS := $(patsubst bpf/%.c,node_agent/kernel/objects/%.o,$(BPF_SOURCES))

C_SOURCES := $(shell find bpf tests -name '*.[ch]')

PORT ?=
DATA_DIR ?=
ARGS ?=
UP_ARGS := $(if $(PORT),--port '$(PORT)') $(if $(DATA_DIR),--data-dir '$(abspath $(DATA_DIR))') $(ARGS)
PYTEST_ARGS ?=

.PHONY: help setup bpf deb demo test test-setup test-long test-races bench bench-stacks bench-hostile bench-setup lint clean

help: ## this list
	@echo "make demo [PORT=8380] [DATA_DIR=folder] [ARGS='--for 60s --json']"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(firstword $(MAKEFILE_LIST)) | \
		while IFS='|' read -r name words; do printf '  make %-12s %s\n' "$$name" "$$words"; done

setup: $(STAMPS)/setup $(BPF_OBJECTS) ## .venv with both commands, and the BPF objects

bpf: $(BPF_OBJECTS) ## compile the BPF programs that changed

deb: setup ## the agent's Debian package, for ansible; build/deb
	@$(BIN)/python packaging/deb/build.py

demo: setup ## a live flamegraph of this machine in a browser; Ctrl-C stops it
	@exec $(BIN)/flamefleet up $(UP_ARGS)

test: test-setup lint ## set-up, linters and every test that is not long
	FLAMEFLEET_REQUIRE=1 $(BIN)/python scripts/run_tests.py $(PYTEST_ARGS)

test-long: test-setup ## repetitions, soaks and reboots
	FLAMEFLEET_REQUIRE=1 $(BIN)/pytest -m long $(PYTEST_ARGS)

# Pytest runs whenever it can, on the one CPU that what it starts has too: a test that looks before
# there is something to see fails here each time, elsewhere once in a thousand.
test-races: test-setup ## tests, each always faster than the processes that it starts
	FLAMEFLEET_REQUIRE=1 taskset -c 0 chrt -f -R 50 $(BIN)/pytest -m "not long" $(PYTEST_ARGS)

bench: bench-setup ## what the agent costs, beside four others; build/bench/agent.json
	$(BIN)/python -m benchmarks.agent $(ARGS)

bench-stacks: bench-setup ## how true its stacks are, beside perf and py-spy; build/bench/stacks.json
	$(BIN)/python -m benchmarks.stacks $(ARGS)

bench-hostile: bench-setup ## what the worst requests do to the aggregator; build/bench/hostile.json
	$(BIN)/python -m benchmarks.hostile $(ARGS)

lint: test-setup ## ruff, mypy and clang-format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	clang-format --dry-run -Werror $(C_SOURCES)

clean: ## remove what was built, but not the virtual environment
	rm -rf build dist node_agent/kernel/objects node_agent/kernel/source .mypy_cache .ruff_cache .pytest_cache

test-setup: $(STAMPS)/test $(BPF_OBJECTS)

bench-setup: $(STAMPS)/bench $(BPF_OBJECTS)

$(STAMPS)/setup: pyproject.toml Makefile scripts/debian_packages.sh scripts/venv.sh
	@echo "setting this checkout up, once" >&2
	scripts/debian_packages.sh $(BUILD_PACKAGES)
	scripts/venv.sh $(VENV) demo
	mkdir -p $(@D) && touch $@

# `dev` holds `demo`, so this brings the first stamp too.
$(STAMPS)/test: pyproject.toml Makefile scripts/debian_packages.sh scripts/venv.sh
	@scripts/debian_packages.sh $(TEST_PACKAGES)
	# Compilers and runtimes of programs that tests profile; whoever has them from elsewhere keeps those.
	command -v go >/dev/null || scripts/debian_packages.sh golang-go
	command -v rustc >/dev/null || scripts/debian_packages.sh rustc
	command -v node >/dev/null || scripts/debian_packages.sh nodejs
	command -v jcmd >/dev/null || scripts/debian_packages.sh default-jdk-headless
	scripts/venv.sh $(VENV) dev
	mkdir -p $(@D) && touch $(STAMPS)/setup $@

$(STAMPS)/bench: $(STAMPS)/setup
	@scripts/debian_packages.sh $(BENCH_PACKAGES)
	command -v go >/dev/null || scripts/debian_packages.sh golang-go
	command -v rustc >/dev/null || scripts/debian_packages.sh rustc
	scripts/venv.sh $(VENV) bench
	touch $@

# One run of the script makes all objects.
$(BPF_OBJECTS) &: $(BPF_SOURCES) $(wildcard bpf/*.h) bpf/build.sh | $(STAMPS)/setup
	@source scripts/step.sh
	step "compiling the BPF programs" bpf/build.sh
	touch $(BPF_OBJECTS)
