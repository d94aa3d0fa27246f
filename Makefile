# make demo   set everything up and serve the application at the address it prints (PORT=8000 make demo: another port)
# make test   set everything up and run linter and tests
#
# Only python3 (3.11 or newer) and pip are presumed; by make test also Chromium, which the test of the page drives. The first run creates .venv and installs into it, later ones start at once.

PYTHON ?= python3
VENV   ?= .venv
PIP    := $(VENV)/bin/python -m pip install --disable-pip-version-check --quiet

.PHONY: demo test test-slow lint clean

demo: $(VENV)/.installed
	$(if $(PORT),GRADIO_SERVER_PORT=$(PORT)) $(VENV)/bin/python app.py

test: lint
	$(VENV)/bin/python -m pytest

test-slow: lint
	$(VENV)/bin/python -m pytest -m slow

lint: $(VENV)/.installed-test
	$(VENV)/bin/python -m ruff check .

# Debian's python3 may come without ensurepip; then the outer pip puts one into the environment.
$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed: make PYTHON=python3.12 ..."'
	$(PYTHON) -m venv $(VENV) || { $(PYTHON) -m venv --clear --without-pip $(VENV) \
	  && $(PYTHON) -m pip --python $(VENV)/bin/python install --quiet pip; }

$(VENV)/.installed: requirements.txt pyproject.toml | $(VENV)/bin/python
	@echo "Installing into $(VENV): minutes the first time ..."
	$(PIP) -r requirements.txt
	$(PIP) --no-deps --editable .
	touch $@

$(VENV)/.installed-test: requirements-test.txt $(VENV)/.installed
	$(PIP) -r requirements-test.txt
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache *.egg-info build
