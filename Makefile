# Every target is a few plain commands; README.md spells the first ones out for who has no make.
PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= test
RUN = $(VENV)/bin/python

FAST = $(addprefix tests/test_, checkpoints.py gan.py layering.py losses.py penalties.py steps.py \
	tasks.py weighting.py)

.PHONY: help train test test-fast test-slow lint package docs

help:  ## what these targets are
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

train: $(VENV)/installed  ## train on the embedded 8x8 digits; pictures in runs/digits/samples
	$(RUN) -m experiments.digits --run-dir runs/digits --resume auto

test: $(VENV)/installed-test  ## the tests; with EXTRAS=test,parity those beside PyTorch, too
	$(RUN) -m pytest -n 2 --dist loadfile

test-fast: $(VENV)/installed-test  ## a minute's part, also for another interpreter: VENV=.venv-newer PYTHON=python3.13
	$(RUN) -m pytest $(FAST)

test-slow: $(VENV)/installed-test  ## from half a minute each
	$(RUN) -m pytest -m slow

lint: $(VENV)/installed-test  ## style, types, notebooks without outputs
	$(VENV)/bin/ruff check .
	$(VENV)/bin/basedpyright --pythonpath $(RUN)
	$(VENV)/bin/nbstripout --verify docs/notebooks/*.ipynb

package: $(VENV)/installed-test  ## build the package into dist/, and use it where there is nothing else
	rm -rf dist
	$(RUN) -m build --outdir dist >/dev/null
	$(RUN) -m twine check --strict dist/*
	bash tests/installed.sh dist/*.whl $(PYTHON)

docs: $(VENV)/installed-docs  ## the documents as a site, docs/_build/html/index.html; runs the notebooks
	$(RUN) -m sphinx -W --keep-going -b html docs docs/_build/html

$(VENV)/installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/installed-test: $(VENV)/installed pyproject.toml
	$(RUN) -m pip install --quiet --disable-pip-version-check -e '.[$(EXTRAS)]'
	touch $@

$(VENV)/installed-docs: $(VENV)/installed pyproject.toml
	$(RUN) -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	touch $@
