# Every target is a few plain commands; README.md spells them out for who has no make.
PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= test
RUN = $(VENV)/bin/python

FAST = $(addprefix tests/test_, checkpoints.py gan.py layering.py losses.py penalties.py steps.py \
	tasks.py weighting.py)

.PHONY: train test test-fast test-slow lint

# Train on the embedded 8x8 digits; pictures in runs/digits/samples.
train: $(VENV)/installed
	$(RUN) -m experiments.digits --run-dir runs/digits --resume auto

# With EXTRAS=test,parity PyTorch is installed, and what is compared with it runs too.
test: $(VENV)/installed-test
	$(RUN) -m pytest -n 2 --dist loadfile

# A minute's part, for another interpreter: make test-fast VENV=.venv-newer PYTHON=python3.13
test-fast: $(VENV)/installed-test
	$(RUN) -m pytest $(FAST)

test-slow: $(VENV)/installed-test
	$(RUN) -m pytest -m slow

# Style, then types.
lint: $(VENV)/installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/basedpyright --pythonpath $(RUN)

$(VENV)/installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/installed-test: $(VENV)/installed pyproject.toml
	$(RUN) -m pip install --quiet --disable-pip-version-check -e '.[$(EXTRAS)]'
	touch $@
