# `make demo` and `make test` install everything they need into .venv.

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
RIVALS := $(VENV)/rivals
STAMP := $(VENV)/.installed
CHECKED := config daemon model tests $(wildcard examples benchmarks)

PYTHONS := 3.11 3.12 3.13

# The first Python on PATH that runs, is supported and has venv and pip. Each is run, because version
# managers put names on PATH that run nothing.
define find_python
set -eu; python=; \
for name in python3 $(PYTHONS:%=python%) python; do \
	if $$name -c 'import sys, venv, ensurepip; sys.exit("%d.%d" % sys.version_info[:2] not in sys.argv[1:])' \
		$(PYTHONS) 2>/dev/null; \
	then python=$$name; break; fi; \
done; \
if [ -z "$$python" ]; then \
	echo "candlecast needs Python with venv, one of the versions $(PYTHONS); none is on PATH" \
		"(no released TensorFlow supports newer ones yet)" >&2; exit 1; fi
endef

.PHONY: help demo test soak chaos fuzz bench lint format docs install uninstall sbom lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMP) ## show live forecasts of recorded candles; Ctrl-C ends it
	@$(BIN)/candlecast demo $(ARGS)

# Many tests wait for sockets: three processes keep two cores busy. The integration tests run whole daemons on
# one-second candles, so they run apart from the tests that use all of the processor.
test: lint ## lint, types and all tests, or those of ARGS=...
ifdef ARGS
	@$(BIN)/python -m pytest $(ARGS)
else
	@$(BIN)/python -m pytest -n 3 --dist loadfile --ignore=tests/integration
	@$(BIN)/python -m pytest -n 2 --dist loadfile tests/integration
endif

soak: $(STAMP) ## repeat the tests marked `soak` for hours instead of seconds
	@CANDLECAST_SOAK=1 $(BIN)/python -m pytest -m soak --timeout=14400 \
		-o faulthandler_timeout=0 $(ARGS)

chaos: $(STAMP) ## inject random faults for MINUTES=10 from SEED, then compare all forecasts
	@CANDLECAST_CHAOS_MINUTES=$(or $(MINUTES),10) CANDLECAST_CHAOS_SEED=$(SEED) \
		$(BIN)/python -m pytest tests/faults/test_chaos.py -s --timeout=0 \
		-o faulthandler_timeout=0 $(ARGS)

fuzz: $(STAMP) ## every fuzzer for SECONDS=60 each, or those of FUZZERS="okx mqtt5"
	@set -e; mkdir -p build/fuzz; names="$(FUZZERS)"; \
	: $${names:=$$($(BIN)/python -c 'from tests.fuzz.target import all_targets; print(*all_targets())')}; \
	for name in $$names; do echo "== $$name"; \
		$(BIN)/python -m tests.fuzz.run $$name -max_total_time=$(or $(SECONDS),60) \
			-timeout=20 -artifact_prefix=build/fuzz/; done

bench: $(RIVALS)/.installed ## run every benchmark, at most an hour; needs mosquitto and an idle machine
	@PYTHONPATH=$(RIVALS) $(BIN)/python -m benchmarks $(ARGS)

lint: $(STAMP) ## run ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(STAMP) ## fix and format the code with ruff
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

docs: $(STAMP) ## write the generated parts of the documentation
	@$(BIN)/python -m docs.render

install: ## install the daemon as a systemd service in /opt/candlecast; as root
	@$(find_python); PYTHON=$$python systemd/install.sh install

uninstall: ## remove the service; keep configuration and state
	@systemd/install.sh uninstall

sbom: $(STAMP) ## write the bill of materials: build/sbom.json, CycloneDX
	@mkdir -p build
	@$(BIN)/python systemd/sbom.py build/sbom.json

lock: ## update all lock files (needs uv)
	@command -v uv >/dev/null || { echo "make lock needs uv on PATH" >&2; exit 1; }
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-emit-find-links --no-annotate --no-header --extra demo --group dev \
		pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-emit-find-links --no-annotate --no-header -c requirements.lock \
		benchmarks/requirements.in -o benchmarks/requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-emit-find-links --no-annotate --no-header -c requirements.lock --extra train \
		--group build pyproject.toml -o systemd/requirements.lock

# In a separate folder: some of them install a package `tests` that would hide ours.
$(RIVALS)/.installed: benchmarks/requirements.lock $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
		--upgrade --target $(RIVALS) -r benchmarks/requirements.lock
	@touch $@

clean: ## remove .venv and all build output
	rm -rf $(VENV) .venv-* build dist *.egg-info .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): requirements.lock pyproject.toml
	@$(find_python); \
	echo "Setting up $(VENV) with $$($$python --version) (once; some minutes)"; \
	test -x $(BIN)/python || $$python -m venv $(VENV); \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes \
		-r requirements.lock; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-index --no-deps \
		--no-build-isolation --editable .
	@touch $@
