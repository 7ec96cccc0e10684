# Two commands: `make demo` and `make test`. Both install what they need into .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_OUT ?= demo_runs
DEMO_ARGS ?=
DEMO_DATA := --dataset.categories '[bolt,bracket,flange,gear,hook,nut,spring,washer]' --dataset.points 2048 \
             --dataset.test_normal 5 --dataset.test_defective 7

.PHONY: demo test lint types slow bench clean

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) or sys.version_info >= (3, 14))' || \
	  { echo "continual3d needs Python 3.11, 3.12 or 3.13; set PYTHON=/path/to/one (this is $$($(PYTHON) --version))"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "python3 cannot make virtual environments here; on Debian/Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "installing continual3d and its packages into $(VENV) (a few minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/continual3d run class_incremental --strategy BTF --output $(DEMO_OUT) $(DEMO_DATA) $(DEMO_ARGS)
	$(BIN)/continual3d run class_incremental --strategy C3DAD --strategy.epochs 30 --output $(DEMO_OUT) $(DEMO_DATA) $(DEMO_ARGS)
	$(BIN)/continual3d table $(DEMO_OUT)
	@echo "figures: $$(find $(DEMO_OUT) -name '*.png' | sort | tr '\n' ' ')"

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.installed
	$(BIN)/mypy

test: lint types
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal --durations=15

slow: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m slow

bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.run

clean:
	rm -rf $(VENV) demo_runs build *.egg-info .pytest_cache .ruff_cache .mypy_cache
