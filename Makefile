PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt

.PHONY: run test test-slow lint bench evidence screenshots clean

# the demonstration: five arms, three seeds, a table and a report
run: $(VENV)/.lab
	$(BIN)/budgeteer compare uniform-answer-stop@50% duet@50% prompt-selection@50% --seeds 3 --out runs/demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.dev
	$(PIP) -e '.[bench]'
	$(BIN)/python benchmarks/allocate.py
	$(BIN)/python benchmarks/sampler.py
	$(BIN)/python benchmarks/ledger.py
	$(BIN)/python benchmarks/gateway.py $(if $(LITELLM),--litellm $(LITELLM))
	$(BIN)/python benchmarks/rlvr.py
	$(BIN)/python benchmarks/rlvr.py --ablation
	$(BIN)/python benchmarks/estimate.py $(if $(DATA),--data $(DATA))
	$(BIN)/python benchmarks/smollm2.py $(if $(DATA),--data $(DATA))
	$(BIN)/python benchmarks/smollm2_guidance.py

evidence: $(VENV)/.lab
	$(BIN)/budgeteer evidence --all

# the pictures of docs/dashboard.md; needs chromium
screenshots: $(VENV)/.dev
	$(BIN)/python tests/screenshots.py

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "budgeteer needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.lab: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) -e '.[lab]'
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.lab

clean:
	rm -rf $(VENV) runs
