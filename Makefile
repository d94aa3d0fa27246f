# make demo      set everything up and serve the application at the address it prints (PORT=8000 make demo: another port)
# make test      set everything up and run linter and tests
# make coverage  the same, and which lines of the package no test runs
# make format    the code as the linter wants it
# make lock      after a change of requirements.txt or requirements-test.txt: the lock files anew
# make audit     known vulnerabilities of what is locked; asks PyPI's and OSV's services, so not in CI, which has no network
# make release-files  dist/sbom.cdx.json (CycloneDX) and dist/licences.csv of what is installed, for a release
# make hooks     the linter before every commit, the types before every push
#
# Only python3 (3.11 or newer) and pip are presumed; by make test also Chromium, which the test of the page drives, and dciodvfy (Debian: dicom3tools), which verifies DICOM. The first run creates .venv and installs into it, later ones start at once.

PYTHON ?= python3
VENV   ?= .venv
TOOLS  ?= .venv-tools
PIP    := $(VENV)/bin/python -m pip install --disable-pip-version-check --quiet

.PHONY: demo test test-slow coverage lint format lock audit release-files hooks clean

demo: $(VENV)/.installed
	$(if $(PORT),GRADIO_SERVER_PORT=$(PORT)) $(VENV)/bin/python app.py

test: lint
	$(VENV)/bin/python -m pytest $(COVERAGE)

test-slow: lint
	$(VENV)/bin/python -m pytest -m slow

# Counting lines takes a fifth more processor time, so not every run does it.
coverage: COVERAGE = --cov --cov-report=term:skip-covered
coverage: test

lint: $(VENV)/.installed-test
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m ruff format --check .
	$(VENV)/bin/python -m mypy

format: $(VENV)/.installed-test
	$(VENV)/bin/python -m ruff check --fix --select I .
	$(VENV)/bin/python -m ruff format .

lock: $(VENV)/bin/python
	$(PIP) uv==0.13.9
	UV=$(VENV)/bin/uv .ci/lock $(LOCK)

audit: $(TOOLS)/.installed
	$(TOOLS)/bin/pip-audit --no-deps --disable-pip -r requirements.lock
	$(TOOLS)/bin/pip-audit --no-deps --disable-pip -r requirements-test.lock

release-files: $(VENV)/.installed $(TOOLS)/.installed
	mkdir -p dist
	$(TOOLS)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o dist/sbom.cdx.json $(VENV)/bin/python
	$(VENV)/bin/python .ci/licences > dist/licences.csv

# Apart from the application, of whose environment they tell.
$(TOOLS)/.installed:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --disable-pip-version-check --quiet pip-audit==2.10.1 cyclonedx-bom==7.5.0
	touch $@

hooks: $(VENV)/.installed-test
	$(PIP) pre-commit==4.7.0
	$(VENV)/bin/python -m pre_commit install --hook-type pre-commit --hook-type pre-push

# Debian's python3 may come without ensurepip; then the outer pip puts one into the environment.
$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed: make PYTHON=python3.12 ..."'
	$(PYTHON) -m venv $(VENV) || { $(PYTHON) -m venv --clear --without-pip $(VENV) \
	  && $(PYTHON) -m pip --python $(VENV)/bin/python install --quiet pip; }

# Everything by its hash, then torch, the one thing that the lock leaves out (.ci/lock says why), with what its build for
# this machine brings. The second line finds the rest of its list there already.
$(VENV)/.installed: requirements.lock requirements.txt pyproject.toml setup.py | $(VENV)/bin/python
	@echo "Installing into $(VENV): minutes the first time ..."
	$(PIP) --no-deps --require-hashes -r requirements.lock
	$(PIP) -r requirements.txt
	$(PIP) --no-deps --editable .
	touch $@

$(VENV)/.installed-test: requirements-test.lock $(VENV)/.installed
	$(PIP) --no-deps --require-hashes -r requirements-test.lock
	touch $@

clean:
	rm -rf $(VENV) $(TOOLS) .coverage .mypy_cache .pytest_cache .ruff_cache *.egg-info build dist
