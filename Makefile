# make demo    a sample video, learned while you look           ARGS="--fixations 300 --exit" ends by itself
# make test    ruff, mypy, pytest: everything that is promised
# make soak    the slow proofs
# make site    docs/ as a site, in build/site; needs no internet once it is installed
# make wheel   dist/*.whl
#
# Everything is set up in .venv here; nothing else on the machine is touched.
PYTHON ?= python3
PIP_ARGS ?=
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint soak docs site wheel clean

demo: $(VENV)/.demo
	$(BIN)/rjepa demo $(ARGS)

test: $(VENV)/.dev lint
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

soak: $(VENV)/.dev
	$(BIN)/python -m pytest -m soak --timeout 7200 $(ARGS)

docs: $(VENV)/.dev
	$(BIN)/python -m service.settings_page > docs/settings.md
	$(BIN)/python -m service.learning_page
	$(BIN)/python -m service.figures.docs
	$(BIN)/python -m service.performance_page

site: $(VENV)/.docs
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/site
	@echo "build/site/index.html"

wheel: $(VENV)/.dev
	rm -rf build
	$(BIN)/pip wheel --no-deps --wheel-dir dist .

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "Python's venv is missing; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.%: pyproject.toml | $(VENV)/bin/pip
	@echo "Installing what 'make $(MAKECMDGOALS)' needs into $(VENV) (several GB, minutes, only the first time)"
	$(BIN)/pip install --quiet --disable-pip-version-check --progress-bar on $(PIP_ARGS) -e '.[$*]'
	@touch $@
