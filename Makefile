# Every target creates .venv and installs what it needs. Requires Python 3.11 to 3.14, git and make.
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
TEST_WORKERS ?= 3
TARGET ?= shop
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# Where bytecode is not cached, each process of pytest compiles the plugin anew, which takes a second.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help suites test coverage integrations lint docs report-picture bench clean
help:
	@echo "make suites                  run all suites on the simulated shop, with the gate and reports"
	@echo "make suites RECORDING=PATH   run the suites on recorded incidents instead"
	@echo "make test                    run every check of the project: tests, lint, types, import contracts"
	@echo "make coverage                run the same and measure branch coverage, which takes twice as long"
	@echo "make integrations            try real agents against a scripted model (installs about 2 GB below .cache; needs npm)"
	@echo "make lint                    run ruff, mypy and import-linter only"
	@echo "make docs                    build the documentation into build/docs; warnings are errors"
	@echo "make report-picture          take the picture of the report for README.md (needs Chromium)"
	@echo "make bench                   measure sessions by phase, waits for an impact, the shop, the store, the analysis, the receiver and the gateway"
	@echo "make clean                   remove .venv and all caches"

$(VENV)/.run: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] < (3, 15) else "needs Python 3.11-3.14, this is " + sys.version.split()[0] + "; try make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --constraint constraints.txt --editable '.[local,asyncio,html,xdist]'
	touch $@

$(VENV)/.dev: $(VENV)/.run
	$(PIP) install --constraint constraints.txt --editable '.[dev]'
	touch $@

suites: $(VENV)/.run
	$(BIN)/python -m pytest suites --otel-diag-target="$(if $(RECORDING),replay:$(RECORDING),$(TARGET))" --otel-diag-gate \
	  --otel-diag-inconclusive=pass -n $(WORKERS) --html=reports/suites.html --self-contained-html \
	  --junitxml=reports/suites.xml $(ARGS)

# Tests against flagd use the binary named by OTEL_DIAG_TEST_FLAGD, or one on the PATH, or build it with Go; otherwise
# they are skipped with the reason.
test: $(VENV)/.dev
	$(BIN)/python -m tests.run --workers $(TEST_WORKERS)

coverage: $(VENV)/.dev
	$(BIN)/python -m tests.run --workers $(TEST_WORKERS) --coverage

# Not part of the tests: the agents come from registries, each into an environment of its own.
integrations: $(VENV)/.dev
	$(BIN)/python -m tests.integrations.run $(AGENTS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.dev
	$(BIN)/python docs/tables.py
	$(BIN)/sphinx-build --quiet --fresh-env --fail-on-warning --keep-going docs build/docs
	@echo "open build/docs/index.html"

report-picture: $(VENV)/.dev
	$(BIN)/python docs/report_picture.py

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks.sessions
	$(BIN)/python -m benchmarks.impact
	$(BIN)/python -m benchmarks.shop
	$(BIN)/python -m benchmarks.telemetry --spans 1000000
	$(BIN)/python -m benchmarks.telemetry --spans 10000000
	$(BIN)/python -m benchmarks.receiver --seconds 60
	$(BIN)/python -m benchmarks.gateway
	@if [ -n "$(RECORDING)" ]; then $(BIN)/python -m benchmarks.peers $(RECORDING); fi

clean:
	rm -rf $(VENV) build .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
