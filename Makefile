# The two commands of the README are `make demo` and `make test`; each installs what is missing.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test test-slow test-vllm test-versions lint format clean

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode -c constraints.txt -e ".[dev]"
	touch $(READY)

demo: $(READY)
	CUDA_VISIBLE_DEVICES= $(BIN)/accelerate-launch --config_file launch/accelerate/ddp_cpu.yaml \
	    launch/train.py recipe=grpo_mid_hard control=random $(ARGS)

test: lint
	$(BIN)/python -m pytest -m "not slow and not gpu" -n 2 --dist loadfile $(ARGS)

# One test at a time: kills and timings need a quiet machine.
test-slow: $(READY)
	$(BIN)/python -m pytest -m "slow and not gpu" $(ARGS)

# vLLM's CPU build in an environment of its own, .venv-vllm, and the tests that need it.
test-vllm: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tools/environments.py vllm --test

# The fast tests of model and training with the lowest and the newest transformers and TRL.
test-versions: $(READY)
	$(BIN)/python tools/environments.py lowest --test
	$(BIN)/python tools/environments.py newest --test

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv outputs
