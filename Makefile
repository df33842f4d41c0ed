# podloxx: `make help` lists every verb.
SHELL := /bin/bash
.DEFAULT_GOAL := help
# Services run as users without a home: they need a Python that is not inside somebody's.
PYTHON ?= $(shell /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo /usr/bin/python3 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest

.PHONY: help run test setup lint types arch unit contract component netns e2e bench bpf lock clean

help: ## list the verbs
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: setup ## show live traffic of a miniature cluster on this machine
	$(BIN)/podloxx-launch demo

test: setup lint types arch ## set all up and run every check and test
	@# Services run as users of their own; all of them must be able to leave what was covered.
	@data=$$(mktemp -d) && trap 'rm -rf "$$data"' EXIT && chmod 1777 "$$data" && export COVERAGE_FILE="$$data/coverage" && \
		$(BIN)/coverage run -m pytest && \
		$(BIN)/coverage combine --quiet && \
		$(BIN)/coverage report --fail-under=95 && \
		$(BIN)/coverage report --include='services/flows/*' --fail-under=100

setup: $(VENV)/.ready ## install Debian packages that are missing, and the virtual environment

$(VENV)/.ready: requirements.lock pyproject.toml packages.debian scripts/setup
	PYTHON="$(PYTHON)" VENV="$(VENV)" bash scripts/setup
	touch $@

lint: setup ## style, spelling, unused dependencies
	$(BIN)/ruff check services tests
	$(BIN)/ruff format --check services tests
	$(BIN)/codespell services tests docs *.md
	$(BIN)/deptry .

types: setup ## mypy, strict
	$(BIN)/mypy services tests

arch: setup ## who may import whom
	$(BIN)/lint-imports

unit: setup ## tests of single modules
	$(PYTEST) tests/unit

contract: setup ## tests of what others rely on
	$(PYTEST) tests/contract

component: setup ## tests of single services against a real Redis
	$(PYTEST) tests/component

netns: setup ## tests on real interfaces in network namespaces (root)
	$(PYTEST) tests/netns

e2e: setup ## tests of the whole tool (root)
	$(PYTEST) tests/e2e

bench: setup ## measurements, as ratios against peers in the same run (root)
	$(PYTEST) -p no:randomly -s tests/bench

# Another clang gives other instructions, so the one that built what is committed is named.
BPF_CLANG := clang-14
BPF_OBJECT ?= services/capture/bpf/flow.bpf.o

bpf: ## build the kernel's program anew (clang 14; Debian 12: apt-get install clang-14 linux-libc-dev)
	$(BPF_CLANG) -O2 -g0 -mcpu=v2 -target bpf -Wall -Wextra -Werror -I/usr/include/$(shell uname -m)-linux-gnu \
		-c services/capture/bpf/flow.bpf.c -o $(BPF_OBJECT)

lock: ## renew requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links --group dev pyproject.toml --all-extras --upgrade -o requirements.lock

clean: ## remove what setup and tests made
	rm -rf $(VENV) .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist
