# Satchel. `make` alone lists the commands.
#
# Everything lands in .venv/; nothing is installed on the machine and nothing needs root.
# PYTHON=python3.12 make setup   chooses the interpreter (3.11 or newer).

PYTHON ?= python3
DATA ?= .devnet
LOG ?= $(DATA)
SEED ?= 1
BARS ?= bars.csv
OUT ?= month
PORT ?= 8080

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.satchel-setup
UV := $(shell command -v uv 2>/dev/null)

# An installed package of another name must not be picked up by chance.
export PYTHONNOUSERSITE := 1
unexport PYTHONPATH
unexport PYTHONOPTIMIZE
# Hundreds of processes start in a run of the tests: none has to compile again what another has.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup run reset test check bench crash simulate gaps month mutants replay compile uncompile doctor lock

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv with everything pinned and hashed (uv when present, else pip)

$(STAMP): pyproject.toml requirements.lock tools/setup/fetch_anvil.py
	@echo "setting up .venv; the first time takes a minute or two"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Satchel needs Python 3.11 or newer; PYTHON=python3.x make setup chooses one")'
ifneq ($(UV),)
	@test -x $(BIN)/python || uv venv -q --python $(PYTHON) $(VENV)
	uv pip install -q --python $(BIN)/python --require-hashes -r requirements.lock
	uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
else
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV) || { echo "no venv module: on Debian, apt install python3-venv"; exit 1; }
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
endif
	@$(BIN)/python tools/setup/fetch_anvil.py
	@touch $@

run: $(STAMP) ## start a devnet with a living book; Ctrl-C stops it (PORT=8080, DATA=.devnet)
	@$(BIN)/satchel demo --data $(DATA) --port $(PORT)

reset: ## forget what `make run` kept
	@if [ -e "$(DATA)/ledger.db.lock" ] && ! flock -n "$(DATA)/ledger.db.lock" true; then echo "a node is running on $(DATA): stop it first (Ctrl-C)"; exit 1; fi
	@if [ ! -e "$(DATA)" ]; then echo "nothing to remove: no $(DATA)"; \
	elif [ -f "$(DATA)/ledger.db" ]; then rm -rf -- "$(DATA)" && echo "removed $(DATA)"; \
	else echo "$(DATA) holds no ledger.db: not removed" >&2; exit 1; fi

test: $(STAMP) ## run the tests (real SQLite, PostgreSQL, anvil; under ten minutes)
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --durations=15

check: $(STAMP) ## ruff, mypy --strict, import contracts, rules against functions and tests
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.checks

bench: $(STAMP) ## measure, and print beside the peers' figures
	$(BIN)/satchel bench

crash: $(STAMP) ## kill -9 under load, fifty times, on SQLite and on PostgreSQL
	SATCHEL_CRASHES=50 $(BIN)/python -m pytest tests/crash --timeout 3600 -v

simulate: $(STAMP) ## the seeded simulation at full length (SEED=1)
	$(BIN)/python -m tests.simulation --seed $(SEED)

gaps: $(STAMP) ## print which stage of liquidation absorbs a gap, on thick and on empty books
	$(BIN)/python -m tests.simulation.gaps

month: $(STAMP) ## a month of one-minute bars over two thousand traders, with plots (BARS=file.csv, OUT=folder)
	$(BIN)/python -m tests.simulation.january --bars $(BARS) --out $(OUT)

mutants: $(STAMP) ## plant known bugs one by one; every one must turn the tests red
	$(BIN)/python -m tests.mutants

replay: $(STAMP) ## replay a stopped or running node's log and compare everything (LOG=folder)
	$(BIN)/satchel replay --data $(LOG)

compile: $(STAMP) ## build the core with mypyc and a C compiler: same bytes, faster
	@$(BIN)/python tools/setup/compile_core.py

uncompile: $(STAMP) ## forget the compiled core: everything runs as Python again
	@$(BIN)/python tools/setup/compile_core.py --remove

doctor: ## say what this machine has and lacks
	@$(PYTHON) tools/setup/doctor.py

lock: ## write requirements.lock anew from pyproject.toml (needs uv)
	uv pip compile pyproject.toml -q --all-extras --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --no-annotate --upgrade -o requirements.lock
