# Two commands set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check docs clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

# The tiny recipe's whole life on the built-in corpus: pretraining, fine-tuning, preferences, scores, then one question.
demo: $(VENV)/installed
	$(BIN)/buddy pretrain recipes/tiny.yaml --resume
	$(BIN)/buddy sft recipes/tiny.yaml --resume
	$(BIN)/buddy dpo recipes/tiny.yaml --resume
	$(BIN)/buddy eval runs/tiny/pretrain/model runs/tiny/sft/model runs/tiny/dpo/model --tasks demo,bits-zh
	$(BIN)/buddy chat --prompt "朱延年住在哪条街？" --temperature 0

# A process for each core, one thread each: two that compute with all cores would slow each other several times.
# Files go in their order: those with few and long tests stand first, so that no core waits for another at the end.
test: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# Lint, format, types, floors.
check: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

# What is made from the recipe's schema; a test sees that it is up to date.
docs: $(VENV)/installed
	$(BIN)/python -m buddygpt.recipe.reference > docs/recipe.md
	$(BIN)/python -m buddygpt.recipe.reference --schema > recipes/recipe.schema.json

clean:
	rm -rf $(VENV) build dist *.egg-info
