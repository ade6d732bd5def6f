# Everything a developer does with Duet. `make help` lists it. Works with GNU make 3.81 and later.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

VENV := .venv
BIN := $(VENV)/bin
# Newest first; the first that runs, is new enough and can make environments is taken.
PYTHON ?= python3.14 python3.13 python3.12 python3.11 python3 python
COMPOSE = $(shell if docker compose version >/dev/null 2>&1; then echo docker compose; else echo docker-compose; fi)
PYTEST = $(BIN)/python -m pytest
IN_PAIRS := -n 2 --dist worksteal
# It measures what other tests would distort.
ALONE := tests/browser/test_many_messages.py::test_ten_thousand_messages_scroll_smoothly
ARGS ?=

# Settings of the caller's pip and Python that would send packages or imports elsewhere.
unexport PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT PIP_NO_DEPS PIP_DRY_RUN PIP_REQUIREMENT
unexport PIP_REQUIRE_VIRTUALENV PIP_NO_BINARY PYTHONHOME PYTHONPATH PYTHONSAFEPATH

.PHONY: run
run: $(VENV)/.runtime-installed ## start both services here; state in ./data; Ctrl-C stops them
	@exec $(BIN)/python -m shared.launcher

.PHONY: test
test: $(VENV)/.dev-installed ## all tests but those that need Docker or a browser; ARGS="-k name" selects
	$(PYTEST) $(ARGS)

.PHONY: test-integration
test-integration: $(VENV)/.dev-installed ## tests on real sockets, files and processes
	$(PYTEST) tests/integration tests/e2e $(ARGS)

.PHONY: test-compose
test-compose: $(VENV)/.dev-installed ## build the images and try them; needs a Docker engine
	$(PYTEST) tests/compose -m compose $(ARGS)

.PHONY: test-browser
test-browser: $(VENV)/.dev-installed tests/browser/node_modules ## the web page in Chromium, duet.js in Node.js
	$(PYTEST) $(IN_PAIRS) tests/browser -m browser $(or $(ARGS),--deselect $(ALONE))
	$(if $(ARGS),,$(PYTEST) $(ALONE) -m browser)

.PHONY: test-scale
test-scale: $(VENV)/.dev-installed tests/browser/node_modules ## end-to-end and browser tests on PostgreSQL and NATS
	DUET_TEST_SCALE=1 $(PYTEST) tests/e2e tests/browser -m "not compose" $(ARGS)

tests/browser/node_modules: tests/browser/package-lock.json
	npm ci --prefix tests/browser --no-audit --no-fund
	@touch $@

.PHONY: screenshots
screenshots: $(VENV)/.dev-installed ## take docs/images anew; needs Chromium
	$(BIN)/python -m tests.browser.screenshots

.PHONY: faults
faults: $(VENV)/.dev-installed ## every fault, often, on real processes (docs/reliability.md); ARGS=--short
	$(BIN)/python -m tests.faults $(if $(ARGS),$(ARGS),--long)

.PHONY: faults-scale
faults-scale: $(VENV)/.dev-installed ## faults across gateways, PostgreSQL and NATS (docs/scale.md); ARGS=--short
	$(BIN)/python -m tests.scale $(if $(ARGS),$(ARGS),--long)

.PHONY: fuzz
fuzz: $(VENV)/.dev-installed ## fuzz the protocol and the HTTP bodies; ARGS="--executions 1000000"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check atheris
	$(BIN)/python -m tests.fuzz session $(ARGS)
	$(BIN)/python -m tests.fuzz http $(ARGS)

.PHONY: conformance
conformance: $(VENV)/.dev-installed ## Autobahn (needs wstest: docs/reliability.md) and Schemathesis, all checks but two
	$(BIN)/python -m tests.faults --long --only autobahn --only schemathesis

.PHONY: audit
audit: $(VENV)/.dev-installed ## known faults of the locked dependencies; needs the advisory database
	@out=$$($(BIN)/uv tool run --from 'pip-audit~=2.10' pip-audit --strict --disable-pip --no-deps \
	  -r requirements.lock 2>&1) && echo "$$out" || { \
	  echo "$$out" | grep -qE "could not be audited|Max retries" \
	  && echo "SKIPPED: the advisory database cannot be reached from here" \
	  || { echo "$$out"; exit 1; }; }

.PHONY: bench
bench: $(VENV)/.bench-installed ## Duet beside a bare relay that stores nothing; ARGS=targets, growth, soak, scale, full or report
	$(BIN)/python -m bench $(ARGS)

.PHONY: instructions
instructions: $(VENV)/.dev-installed ## count what a message costs (needs valgrind); ARGS=--set makes it the bound
	$(BIN)/python -m tests.performance.instructions $(ARGS)

.PHONY: docs
docs: $(VENV)/.dev-installed ## write docs/asyncapi.json anew from the code
	$(BIN)/python -m ws_gateway asyncapi > docs/asyncapi.json.new
	mv docs/asyncapi.json.new docs/asyncapi.json

.PHONY: check
check: $(VENV)/.bench-installed ## what must pass before a commit: style, types, imports, tests
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/mypy -p bench
	$(BIN)/lint-imports
	@$(MAKE) --no-print-directory audit
	$(PYTEST) $(IN_PAIRS) --cov --cov-report=term:skip-covered \
	  --ignore=tests/faults --ignore=tests/scale --ignore=tests/performance $(ARGS)
	$(PYTEST) tests/faults tests/scale tests/performance # measure what others, or a tracer, distort

.PHONY: format
format: $(VENV)/.dev-installed ## format the code and mend what can be mended
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

.PHONY: up
up: ## build both images and start them in the background
	$(COMPOSE) up --build --detach
	@echo "Profile service: http://127.0.0.1:8000   gateway: ws://127.0.0.1:8765/v1/ws"
	@echo "Follow them with 'make logs', stop them with 'make down'."

.PHONY: down
down: ## stop the containers; their data stays (ARGS=--volumes deletes it)
	$(COMPOSE) down $(ARGS)

.PHONY: logs
logs: ## follow the logs of the containers
	$(COMPOSE) logs --follow --tail=100

SCALE = $(COMPOSE) --project-name duet-scale --file docker-compose.scale.yml --env-file .env.scale

.PHONY: up-scale
up-scale: ## several gateways and profile services on PostgreSQL and NATS (docs/scale.md)
	@sh deploy/secrets.sh .env.scale
	$(SCALE) up --build --detach
	@echo "Everything is at http://127.0.0.1:8080 and ws://127.0.0.1:8080/v1/ws"
	@echo "Replace the services one by one with 'make roll', stop them with 'make down-scale'."

.PHONY: roll
roll: ## build anew, and replace the services of up-scale one by one while people talk
	sh deploy/roll.sh $(SCALE)

.PHONY: down-scale
down-scale: ## stop what up-scale started; the data stays (ARGS=--volumes deletes it)
	$(SCALE) down $(ARGS)

.PHONY: lock
lock: $(VENV)/.dev-installed ## lock the dependencies anew; ARGS=--upgrade takes newer versions
	$(UV_COMPILE) pyproject.toml --output-file requirements.lock
	$(UV_COMPILE) pyproject.toml --extra dev --constraint requirements.lock \
	  --output-file requirements-dev.lock
	$(UV_COMPILE) bench/requirements.in --output-file bench/requirements.lock

UV_COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-header --no-emit-index-url --no-emit-find-links --annotation-style=line $(ARGS)

.PHONY: clean
clean: ## delete what tools made here, the environment too; ./data stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis htmlcov
	rm -f .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# A missing or dangling interpreter makes the environment anew. `ensurepip` is what Debian splits off.
$(BIN)/python:
	@for python in $(PYTHON); do \
	  if "$$python" -c 'import ensurepip, sqlite3, ssl, sys, venv; sys.exit(sys.version_info < (3, 11))' \
	    >/dev/null 2>&1; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "Duet needs Python 3.11 or later with its venv module (Debian, Ubuntu: apt install" >&2; \
	  echo "python3-venv). None of these is that: $(PYTHON). Name one: make PYTHON=/path run" >&2; \
	  exit 1; \
	fi; \
	echo "Making $(VENV) with $$("$$found" --version)"; \
	"$$found" -m venv --clear $(VENV)

$(VENV)/.runtime-installed: requirements.lock $(BIN)/python
	@echo "Installing the locked dependencies into $(VENV); needed once for each change of the lock"
	@$(PIP_INSTALL) --requirement requirements.lock
	@touch $@

$(VENV)/.dev-installed: requirements-dev.lock $(BIN)/python
	@echo "Installing the locked development dependencies into $(VENV)"
	@$(PIP_INSTALL) --requirement requirements-dev.lock
	@touch $@ $(VENV)/.runtime-installed

$(VENV)/.bench-installed: bench/requirements.lock $(VENV)/.dev-installed
	@echo "Installing what only the bench needs into $(VENV)"
	@$(PIP_INSTALL) --requirement bench/requirements.lock
	@touch $@

PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input \
  --require-hashes --no-deps
