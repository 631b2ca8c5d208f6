SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

BIN := .venv/bin
CORES := $(shell nproc)
# Tests mostly wait, so there is one more than cores; but every worker has a MariaDB of its own.
WORKERS ?= $(shell echo $$(($(CORES) < 4 ? $(CORES) + 1 : 4)))
PYTEST := $(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=loadgroup
# Each of them is work for a server: one more than cores and a second is no second.
FAULTS := $(PYTEST) --numprocesses=$(CORES) tests/faults
# The first of these that is there builds the image.
BUILDER ?= $(firstword $(foreach tool,docker podman,$(if $(shell command -v $(tool)),$(tool))))
IMAGE ?= cronrunner

# A virtual environment works only where it was made: one that was moved here is made again.
HERE := $(shell [ -x $(BIN)/python ] && cat .venv/.created 2>/dev/null)

.PHONY: help
help:  ## List the targets
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-14s%s\n", $$1, $$2}'

.PHONY: install
install: .venv/.installed  ## Make .venv with the locked dependencies and this checkout

.venv/.created: $(if $(filter $(CURDIR),$(HERE)),,again)
	@scripts/venv
	@echo '$(CURDIR)' > $@

.venv/.locked: requirements/dev.txt .venv/.created
	@echo 'Installing the locked dependencies into .venv'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $<
	@touch $@

.venv/.installed: pyproject.toml .venv/.locked
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

.PHONY: again
again:

.PHONY: servers
servers:  ## Make sure MariaDB and Prometheus are there for the tests (apt, as root)
	@scripts/servers

.PHONY: test
test: lint types contracts servers  ## Lint, types, contracts and all tests
	$(PYTEST) tests

.PHONY: test-unit
test-unit: install  ## Only the tests which need no server
	$(PYTEST) tests/unit

.PHONY: faults
faults: install servers  ## Repeat each fault of tests/faults many times, in up to 20 minutes
	$(FAULTS) --long
	$(FAULTS) --default servers.*.connections=reset
	$(FAULTS) --default runner.processes=2

.PHONY: test-modes
test-modes: install servers  ## All tests of runs again with used sessions, and in two processes
	$(PYTEST) tests/acceptance --default servers.*.connections=reset
	$(PYTEST) tests/acceptance --default runner.processes=2

.PHONY: load
load: install servers  ## 10,000 tenants in one run: memory, handles, threads, connections
	$(BIN)/python -m pytest tests/load --long --numprocesses=0 --capture=no

.PHONY: test-mysql
test-mysql: install servers  ## All tests that use a server, on MySQL itself (apt, as root)
	@scripts/mysql
	$(PYTEST) --server=mysql -rs tests

.PHONY: test-galera
test-galera: install servers  ## The claims and the locks on a cluster of two nodes (apt, as root)
	@scripts/servers galera
	$(BIN)/python -m pytest --server=galera tests/galera

.PHONY: lint
lint: install  ## Check style and formatting
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .

.PHONY: format
format: install  ## Format, and fix what can be fixed safely
	$(BIN)/ruff check --quiet --fix . || true
	$(BIN)/ruff format --quiet .

.PHONY: types
types: install  ## Check the types
	$(BIN)/mypy --no-error-summary

.PHONY: contracts
contracts: install  ## Check that imports go down only
	$(BIN)/lint-imports --no-logo

.PHONY: demo
demo: install  ## Run all jobs on a few dozen SQLite tenants, some broken on purpose
	@$(BIN)/python -m demo show

.PHONY: demo-mariadb
demo-mariadb: install servers  ## The same on a private MariaDB
	@$(BIN)/python -m demo show --mariadb

.PHONY: bench
bench: bench-extras servers  ## Measure against all that would be run without cronrunner
	$(BIN)/python -m benchmarks

.PHONY: bench-quick
bench-quick: install servers  ## The essential rows of that, in 3 minutes
	$(BIN)/python -m benchmarks --quick --rounds 3

.PHONY: bench-extras
bench-extras: install  ## Celery and Redis, to measure against; without them their rows are empty
	@scripts/redis || echo 'Redis is not there: its rows will say so'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes \
		--requirement requirements/bench.txt || echo 'Celery is not there: its rows will say so'

.PHONY: schema
schema: install  ## Write the JSON Schema of tenants.yaml
	@mkdir -p .cache docs
	$(BIN)/cronrunner check --print-schema > .cache/schema.json
	@mv .cache/schema.json docs/tenants.schema.json

.PHONY: pages
pages: install  ## Write the pages of the shipped jobs
	$(BIN)/python scripts/pages.py

.PHONY: image
image:  ## Build the container image
	$(or $(BUILDER),$(error Docker or Podman is needed: apt-get install podman)) build --tag $(IMAGE) .

.PHONY: test-image
test-image: install  ## Build and run the image without a registry (apt, as root)
	tests/image/run

.PHONY: lock
lock: install  ## Compile requirements/ anew from pyproject.toml
	$(BIN)/uv pip compile $(LOCK) --output-file requirements/runtime.txt pyproject.toml
	$(BIN)/uv pip compile $(LOCK) --output-file requirements/dev.txt --constraints requirements/runtime.txt --group dev pyproject.toml
	$(BIN)/uv pip compile $(LOCK) --output-file requirements/build.txt --constraints requirements/dev.txt --group build
	$(BIN)/uv pip compile $(LOCK) --output-file requirements/bench.txt --constraints requirements/dev.txt --group bench

# Nothing in the compiled files names an index or a folder: they install from whatever the user has.
LOCK := --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links

.PHONY: clean
clean:  ## Remove everything that was made here
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist var
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
