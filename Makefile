# `make demo` and `make test` each do the set-up they need.
# the first interpreter that fmaudit is tested on; PYTHON=... takes another
RUNS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for one in python3.11 python3.12 python3.13 python3; do $$one -c '$(RUNS)' 2>/dev/null && echo $$one && break; done)
VENV := .venv
BIN := $(VENV)/bin
CREATE = test -x $(BIN)/python || $(or $(PYTHON),$(error No Python 3.11, 3.12 or 3.13 is on the path. Install one, or set PYTHON)) -m venv $(VENV)
DEMO := demo
# idle OpenMP threads that spin take the cores from the ones that work
export OMP_WAIT_POLICY ?= passive

.PHONY: demo test test-daemon check docs docs-links wheel bench clean

demo: $(VENV)/.demo-ready
	test -f $(DEMO)/audit.yaml || $(BIN)/fmaudit -c $(DEMO)/audit.yaml init --phantom
	$(BIN)/fmaudit -c $(DEMO)/audit.yaml run

# one thread in each of the two processes of pytest
test: $(VENV)/.test-ready check
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

# a running webserver and daemon, with the tests that take minutes more
test-daemon: $(VENV)/.test-ready
	$(BIN)/pytest -m "" tests/platform/test_daemon.py

check: $(VENV)/.test-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# the site, into docs/_build/html; a broken reference or link inside it fails
docs: $(VENV)/.test-ready
	$(BIN)/python -m sphinx -W -n --keep-going -q -b html docs docs/_build/html

# links that leave the site; asks the network
docs-links: $(VENV)/.test-ready
	$(BIN)/python -m sphinx -q -b linkcheck docs docs/_build/links

# the wheel alone, without extras, in an empty environment
wheel:
	PYTHON=$(PYTHON) bash tests/try_wheel.sh

bench: $(VENV)/.test-ready
	for benchmark in benchmarks/bench_*.py; do echo "== $$benchmark"; $(BIN)/python $$benchmark || exit 1; done

clean:
	rm -rf $(VENV) $(DEMO) docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/.demo-ready: pyproject.toml constraints.txt
	$(CREATE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all]'
	touch $@

# bytecode of the modules that are used is written when they are imported: a minute less than that of all
$(VENV)/.test-ready: pyproject.toml constraints.txt
	$(CREATE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[all,dev]'
	touch $@
