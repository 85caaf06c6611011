# Every target that needs it makes .venv first; PYTHON=python3.13 make test picks another Python.
PYTHON ?= python3
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
BIN := .venv/bin
MADE := .venv/made-$(VERSION)
# On PostgreSQL its driver is needed too.
RUN_READY := $(MADE)-run$(if $(filter postgres:% postgresql:%,$(DATABASE_URL)),-postgresql)
TEST_READY := $(MADE)-test
# The servers that the tests start would compile all modules each time if Python were told to keep none of them.
TESTS := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto --dist worksteal

.PHONY: help run test migrate migration rollback schema openapi pictures lint typecheck coverage check fuzz hammer contract lock bench compare clean

help: ## Show this list
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 20

run: $(RUN_READY) ## Migrate, then serve at HOST:PORT (127.0.0.1:8000) from DATABASE_URL (sqlite:///enrollment.db)
	@$(BIN)/python -m service serve --migrate

test: $(TEST_READY) ## Run the quick tests, in three minutes: one case of each; make test ALL=1 runs all, in twelve
	$(TESTS) $(if $(ALL),,--quick)

migrate: $(RUN_READY) ## Apply the pending migrations to DATABASE_URL
	@$(BIN)/python -m service migrate

migration: $(RUN_READY) ## Write a new, empty migration: make migration NAME=add_rooms
	@test -n "$(NAME)" || { echo "Name it: make migration NAME=add_rooms"; exit 2; }
	@$(BIN)/pw_migrate create --database sqlite:///:memory: --directory migrations "$(NAME)"
	@ls migrations/*_$(NAME).py

rollback: $(RUN_READY) ## Undo the newest migration of DATABASE_URL: it asks, or not with make rollback YES=1
	@$(BIN)/python -m service rollback $(if $(filter 1,$(YES)),--yes)

schema: $(TEST_READY) ## Write schema.sql and catalog.sql in service/storage anew, after a migration was added or changed
	@$(BIN)/python -m tests.schema_sql

openapi: $(RUN_READY) ## Write service/docs/openapi.json anew, after the API was changed
	@$(BIN)/python -m tests.openapi_json

pictures: $(TEST_READY) ## Write service/docs/pictures anew, after the desk was changed; it needs Chromium
	@PYTHONPATH=tests $(BIN)/python -m pictures

lint: $(TEST_READY) ## Check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: $(TEST_READY) ## Check types
	$(BIN)/mypy

coverage: $(TEST_READY) ## Run all the tests; every line and branch of service must be covered
	$(TESTS) --cov

check: lint typecheck coverage ## All that CI checks

fuzz: $(RUN_READY) ## Send what no client should to a live server for five minutes: make fuzz SECONDS=60
	@PYTHONPATH=tests $(BIN)/python -m fuzz --seconds $(or $(SECONDS),300) $(FUZZ)

hammer: $(TEST_READY) ## Hammer two nodes on one PostgreSQL for a minute: make hammer SECONDS=600
	@PYTHONPATH=tests $(BIN)/python -m hammer --seconds $(or $(SECONDS),60)

contract: $(RUN_READY) .venv-contract/made-$(VERSION) ## Hold a live server to openapi.json for a minute: make contract SECONDS=600
	@PYTHONPATH=tests $(BIN)/python -m contract --seconds $(or $(SECONDS),60) $(CONTRACT) $(CURDIR)/.venv-contract/bin

lock: ## Pin every requirements.txt anew, with hashes, from the ranges in pyproject.toml
	$(PYTHON) -m venv --clear .venv-lock
	.venv-lock/bin/pip install --quiet --disable-pip-version-check pip-tools
	.venv-lock/bin/pip-compile $(LOCK) --output-file requirements.txt pyproject.toml
	.venv-lock/bin/pip-compile $(LOCK) --extra postgresql --constraint requirements.txt \
		--output-file service/storage/postgres/requirements.txt pyproject.toml
	.venv-lock/bin/pip-compile $(LOCK) --allow-unsafe --extra test --constraint requirements.txt \
		--output-file tests/requirements.txt pyproject.toml
	.venv-lock/bin/pip-compile $(LOCK) --output-file tests/contract/requirements.txt tests/contract/requirements.in
	.venv-lock/bin/pip-compile $(LOCK) --output-file tests/bench/requirements.txt tests/bench/requirements.in
	rm -rf .venv-lock
# With hashes, pip before 23.3 wants the extras of a package named where the package is pinned.
LOCK := --quiet --upgrade --generate-hashes --no-strip-extras --no-annotate --no-header \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options

bench: .venv-bench/made-$(VERSION) ## Measure against others, in half an hour; in a minute with make bench QUICK=1
	@PYTHONPATH=tests .venv-bench/bin/python -m bench $(if $(QUICK),--quick) $(BENCH)

compare: $(RUN_READY) ## Tell whether a change costs anything, beside a revision, in ten minutes: make compare BASE=main
	@PYTHONPATH=tests $(BIN)/python -m bench.compare $(or $(BASE),HEAD) $(COMPARE)

.venv-%/made-$(VERSION): tests/%/requirements.txt
	$(PYTHON) -m venv --clear .venv-$*
	.venv-$*/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

clean: ## Remove what the other targets made, but no database
	rm -rf .venv .venv-lock .venv-bench .venv-contract build dist *.egg-info .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -exec rm -rf {} +

$(MADE):
	$(PYTHON) -m venv --clear .venv
	@touch $@

$(MADE)-run: requirements.txt | $(MADE)
	$(BIN)/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

$(MADE)-run-postgresql: service/storage/postgres/requirements.txt | $(MADE)
	$(BIN)/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

$(TEST_READY): tests/requirements.txt | $(MADE)
	$(BIN)/pip install --quiet --disable-pip-version-check -r $<
	@touch $@
