PYTHON ?= $(shell python3.11 -c '' 2>/dev/null && echo python3.11 || echo python3)
BIN := .venv/bin

.PHONY: help quickstart blocksworld test lint bench chaos wheel clean

help: ## Print these lines.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

quickstart: .venv/installed ## A preference dataset, a reward model that serves, short DPO and PPO: minutes, on the CPU, in runs/.
	$(BIN)/python -m visionprefer_pipelines.quickstart --out runs

blocksworld: .venv/installed ## Every way to teach an image model, compared by the oracle: hours, on the CPU.
	$(BIN)/python -m visionprefer_pipelines.comparison --out runs/comparison

test: .venv/installed-dev ## Run all tests, the slow ones too: those of the platform, which start no Ray, in two processes.
	$(BIN)/python -m pytest -n 2 tests/platform
	$(BIN)/python -m pytest --ignore tests/platform

lint: .venv/installed-dev ## Check style, types, and that imports run one way.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/installed-dev ## Run the benchmarks, which print ratios.
	set -e; for script in tests/benchmarks/*.py; do $(BIN)/python $$script; done

chaos: .venv/installed-dev ## Kill, cut off and fill up what runs, 24 times at random moments; count what is lost.
	$(BIN)/python tests/chaos/suite.py --rounds 24
	if [ -x .venv-vllm/bin/python ]; then .venv-vllm/bin/python tests/chaos/suite.py --rounds 2 --fault "vLLM engine killed"; fi

wheel: .venv/installed ## Build the wheel, alone in dist/.
	rm -rf dist
	$(BIN)/pip wheel --no-deps --wheel-dir dist .

clean: ## Remove what make made, but for runs/.
	rm -rf .venv dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --upgrade pip
	$(BIN)/pip install --editable '.[local]'
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --group dev --editable '.[local,api,loggers,notebook]'
	touch $@

# VLLM_INSTALL, given an environment, puts vLLM into it: a script, as vLLM for the CPU takes more than pip.
.venv-vllm/installed: pyproject.toml
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --upgrade pip
	.venv-vllm/bin/pip install --group dev --editable '.[local,api]'
	bash $(VLLM_INSTALL) .venv-vllm
	touch $@
