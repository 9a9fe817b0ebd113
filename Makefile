# Two doors: `make demo` and `make test`. Each does the set-up it needs.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
# idle OpenMP threads that spin take the cores from the ones that work
export OMP_WAIT_POLICY ?= passive

.PHONY: demo test test-daemon check wheel bench clean

demo: $(VENV)/.demo-ready
	test -f $(DEMO)/audit.yaml || $(BIN)/fmaudit -c $(DEMO)/audit.yaml init --phantom
	$(BIN)/fmaudit -c $(DEMO)/audit.yaml run

test: $(VENV)/.test-ready check
	$(BIN)/pytest -n 2 --dist loadfile

# a running webserver and daemon, for several minutes
test-daemon: $(VENV)/.test-ready
	$(BIN)/pytest -m daemon tests/platform/test_landing.py

check: $(VENV)/.test-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# the wheel alone, without extras, in an empty environment
wheel:
	PYTHON=$(PYTHON) bash tests/try_wheel.sh

bench: $(VENV)/.test-ready
	for benchmark in benchmarks/bench_*.py; do echo "== $$benchmark"; $(BIN)/python $$benchmark || exit 1; done

clean:
	rm -rf $(VENV) $(DEMO) .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/.demo-ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all]'
	touch $@

$(VENV)/.test-ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	touch $@
