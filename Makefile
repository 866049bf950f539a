# Two commands do everything, the set-up included:  make demo  and  make test
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-fleet test-fleet-short reference coverage faults chaos simulate gpu check lint types bench clean

# Folds share the cores: one thread each, here and in the tests.
export OMP_NUM_THREADS := 1
export NO_ALBUMENTATIONS_UPDATE := 1

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info < (3, 14)' 2>/dev/null \
		|| { echo "foldfleet needs Python 3.11, 3.12 or 3.13; give one: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "this Python cannot make environments; on Debian: apt-get install python3-venv"; exit 2; }
	@echo "Installing foldfleet into $(VENV) (once, a few minutes) ..."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(INSTALLED)
	@test -d demo-data || $(BIN)/foldfleet demo demo-data
	$(BIN)/foldfleet pipeline demo-data/train --test demo-data/test --config configs/demo.yaml \
		--store foldfleet-store --run demo

test: $(INSTALLED)
	$(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile

# Real hosts out of namespaces on this machine; Linux and root. Skipped by name where something is missing.
FLEET := $(BIN)/pytest tests/fleet -n 0 -rs --log-cli-level=INFO $(AGAIN)
test-fleet: $(INSTALLED)
	$(FLEET)

# The same faults, most of them in one run: some 20 minutes on two cores. AGAIN=--last-failed: what failed, once more.
test-fleet-short: $(INSTALLED)
	$(FLEET) -m "not complete"

# The coordinator's mind: what decides, without a clock, a disk or a network. By the tests of their
# names, and by those that play or replay whole runs.
MIND := events entries board slots ledger plan candidates estimate speeds moves early_stops retry fit graph leaks \
	variants placing config folds replay scenario chance faults simulate simulated_time simulated_store \
	simulated_attempts simulated_fleet simulated_commits simulated_faults simulated_drivers forecast forecast_basis \
	forecast_plays machine_lines

coverage: $(INSTALLED)
	$(BIN)/pytest $(wildcard $(MIND:%=tests/coordinator/test_%.py)) tests/coordinator/test_drive.py \
		tests/coordinator/test_placement.py $(MIND:%=--cov=coordinator.%) \
		--cov-report=term-missing:skip-covered --cov-fail-under=95

# 2,000 sequences of faults under racing writers; the tests run a short form.
faults: $(INSTALLED)
	FOLDFLEET_FAULT_SEQUENCES=2000 $(BIN)/pytest tests/shared_store/test_faults.py tests/workers/test_chain_faults.py -k whatever

# 200 writers killed by kill -9. FOLDFLEET_CHAOS_STORE=sftp (or s3) takes another kind of store; _SEED repeats a choice.
chaos: $(INSTALLED)
	FOLDFLEET_CHAOS_KILLS=200 $(BIN)/pytest tests/chaos

# What only a graphics card can show; skipped without one. How far results are apart is logged.
gpu: $(INSTALLED)
	$(BIN)/pytest tests/gpu -rs --log-cli-level=INFO

# 5,000 runs under every fault at once, with models of machines and store around the real coordinator; a few minutes.
simulate: $(INSTALLED)
	$(BIN)/python -m bench.simulate --seeds 0-4999

# docs/reference.md, from the code
reference: $(INSTALLED)
	$(BIN)/python -m docs.reference

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

check: lint types test

bench: $(INSTALLED)
	$(BIN)/python -m bench.step
	$(BIN)/python -m bench.data
	$(BIN)/python -m bench.prepare
	$(BIN)/python -m bench.ensemble
	$(BIN)/python -m bench.predict
	PYTHONPATH=tests $(BIN)/python -m bench.store
	$(BIN)/python -m bench.stall
	$(BIN)/python -m bench.placement
	$(BIN)/python -m bench.placement --scale
	$(BIN)/python -m bench.view
	PYTHONPATH=tests $(BIN)/python -m bench.report
	PYTHONPATH=tests $(BIN)/python -m bench.beside

clean:
	rm -rf $(VENV) demo-data foldfleet-store *.egg-info .pytest_cache .mypy_cache .ruff_cache
