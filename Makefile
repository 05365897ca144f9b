# make setup demo test lint docs bench - each says what it does while it does it.
#
# PyTorch comes from the package index that pip knows. Where that offers the CUDA build only, several GB
# that also run on the CPU, a CPU index saves them:
#   make setup TORCH_INDEX=https://download.pytorch.org/whl/cpu
PYTHON ?= python3
TORCH_INDEX ?=
VENV   := .venv
BIN    := $(VENV)/bin
DONE   := $(VENV)/.installed

.PHONY: setup demo test lint docs bench clean

setup: $(DONE)

$(DONE): pyproject.toml constraints.txt
	@echo "== setting up $(VENV) (PyTorch and what lineside needs; a few minutes, longer for a CUDA build) =="
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	  $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -e '.[dev]'
	@touch $(DONE)

# Real photographs of solar cells (CC BY-NC-SA, never bundled); fetched as a Python package.
$(VENV)/.elpv: $(DONE)
	@echo "== installing the solar-cell photographs (elpv-dataset, CC BY-NC-SA 4.0, 90 MB) =="
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps elpv-dataset
	@touch $@

demo: $(VENV)/.elpv
	@echo "== quality control of solar cells: read, audit, fit every method, report (about 3 minutes on 2 cores) =="
	@$(BIN)/python -m benchmarks.parts.elpv demo/solar_cells
	@rm -rf demo/run
	@$(BIN)/lineside parts train demo/solar_cells/parts.csv --out demo/run \
	  --max-escape 0.2 --confidence 0.9 --no-robustness \
	  --methods detector --methods memory --methods texture --methods brightness

test: $(DONE)
	@echo "== running the tests =="
	$(BIN)/python -m pytest

lint: $(DONE)
	@echo "== format, lint and types =="
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy src/lineside

docs: $(DONE)
	@echo "== writing docs/cli.md and the tables of the READMEs from docs/results =="
	$(BIN)/python -m benchmarks.tables

bench: $(DONE)
	@echo "== benchmarks (hours; one at a time: python -m benchmarks.parts --only NAME) =="
	$(BIN)/python -m benchmarks.parts

clean:
	rm -rf demo .pytest_cache .mypy_cache .ruff_cache
