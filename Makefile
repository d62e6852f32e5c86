# Signalbox: `make run` to use it, `make test` to check it, `make help` for the rest.

SHELL := /bin/sh
.DEFAULT_GOAL := help
# Each step stands on the one before.
.NOTPARALLEL:
.PHONY: help venv venv-dev run test unit servers lint types contracts django-checks pytest format openapi lock clean

PY := .venv/bin/python
export PYTHONPATH :=
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- the virtual environment -------------------------------------------------------------------------------------
# The lock that was installed is kept inside .venv: as long as it equals the one in the tree, nothing is done.

define find_python
	for candidate in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
		command -v $$candidate >/dev/null 2>&1 && \
		$$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && found=$$candidate && break; \
	done; \
	if [ -z "$$found" ]; then \
		echo "error: no Python 3.11 or newer found; install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; \
	fi
endef

define make_venv
	if ! $(PY) -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
		$(find_python); \
		echo "making .venv with $$($$found --version)"; \
		rm -rf .venv; \
		if ! $$found -m venv .venv >/dev/null 2>&1; then \
			rm -rf .venv; \
			echo "error: $$found cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; \
		fi; \
	fi
endef

# $(1): lock to install; $(2): further locks that it covers
define install
	@$(make_venv); \
	if ! cmp -s $(1) .venv/.installed-$(1); then \
		echo "installing $(1) into .venv"; \
		$(PY) -m pip install --quiet --require-hashes -r $(1) || \
			{ echo "error: pip could not install $(1) (its message is above); check the network and repeat" >&2; exit 1; }; \
		for lock in $(1) $(2); do cp $$lock .venv/.installed-$$lock; done; \
	fi
endef

venv: ## .venv with what Signalbox runs on
	$(call install,requirements.txt)

venv-dev: ## .venv with the tools for tests, too
	$(call install,requirements-dev.txt,requirements.txt)

lock: venv-dev ## requirements*.in to requirements*.txt (UPGRADE=1 takes newer versions)
	@for name in requirements requirements-dev; do \
		$(PY) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
			--no-emit-index-url $(if $(UPGRADE),--upgrade) $$name.in -o $$name.txt \
			$$([ $$name = requirements ] || echo -c requirements.txt) || exit 1; \
	done

# --- using it ----------------------------------------------------------------------------------------------------

run: venv ## everything in this terminal: PORT=8000 FLOWER_PORT=5555
	@exec $(PY) -m scheduler_project.supervise $(if $(PORT),--port $(PORT)) $(if $(FLOWER_PORT),--flower-port $(FLOWER_PORT))

# --- checking it -------------------------------------------------------------------------------------------------

PRODUCTION := SIGNALBOX_SECRET_KEY=a-key-for-this-check-alone-0123456789-abcdefghij-KLMNOPQRSTUVWXYZ \
	SIGNALBOX_SIGNING_KEY=another-key-for-this-check-alone-0123456789-abcdefghij SIGNALBOX_HTTPS=1 \
	SIGNALBOX_ALLOWED_HOSTS=signalbox.example.org SIGNALBOX_DATABASE_URL=postgresql://signalbox@127.0.0.1/signalbox \
	SIGNALBOX_BROKER_URL=amqp://signalbox@127.0.0.1// SIGNALBOX_CACHE_URL=redis://127.0.0.1/0 \
	SIGNALBOX_STATE_DIR=build/check
CHECK := SIGNALBOX_STATE_DIR=build/check $(PY) -W error manage.py

test: venv-dev servers lint types contracts django-checks pytest ## everything; servers are installed where root and apt allow

servers: # what the tests need from the system's packages
	@tests/servers/install.sh

lint: venv-dev ## ruff: rules and format
	$(PY) -m ruff check
	$(PY) -m ruff format --check

types: venv-dev ## mypy
	$(PY) -m mypy

contracts: venv-dev ## who may import whom
	@.venv/bin/lint-imports --no-cache

django-checks: venv-dev # migrations, deployment settings and the OpenAPI document agree with the code
	$(CHECK) makemigrations --check --dry-run
	$(PRODUCTION) $(PY) manage.py check --deploy --fail-level WARNING
	@mkdir -p build
	@$(CHECK) spectacular --validate --fail-on-warn --file build/openapi.yaml
	@diff -u docs/openapi.yaml build/openapi.yaml || \
		{ echo "error: docs/openapi.yaml is not what the code says; run: make openapi" >&2; exit 1; }

openapi: venv-dev ## write docs/openapi.yaml
	$(CHECK) spectacular --validate --fail-on-warn --file docs/openapi.yaml

pytest: venv-dev servers
	$(PY) -m pytest tests/integration --database=postgresql --only-with-database
	$(PY) -m pytest tests --database=sqlite

unit: venv-dev ## the tests without a database, in seconds
	$(PY) -m pytest tests/unit --timeout=30

format: venv-dev ## ruff: repair what can be repaired
	$(PY) -m ruff check --fix-only --quiet
	$(PY) -m ruff format

clean: ## remove what make made (not ./var, your data)
	rm -rf .venv build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# What tests/ brings along: the benchmark, the fault harness, the claims.
-include tests/*.mk
