# `make demo` and `make test` each make the environment (.venv) when it is missing or out of date.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# One thread a process: simulators and small networks are slower with two. Agg: no window is needed for plots.
export OMP_NUM_THREADS := 1
export MPLBACKEND := Agg

SUITES ?= benchmarks/adroit.yml benchmarks/adroit_long.yml benchmarks/lift.yml benchmarks/lift_human.yml benchmarks/lift_rnn_gmm.yml benchmarks/images.yml benchmarks/worlds.yml benchmarks/franka.yml benchmarks/kitting.yml benchmarks/ablation.yml benchmarks/offline_data.yml

.PHONY: demo test format lint type benchmark

demo: $(VENV)/installed
	$(BIN)/python -m sb3_q2rl demo

test: $(VENV)/installed
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadscope $(PYTEST_ARGS)

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(VENV)/installed
	$(BIN)/mypy sb3_q2rl envs zoo_configs

# Days of a core; it goes on where it was stopped, and past what fails (lift_human.yml where its data is not).
# One cell: ... benchmark run benchmarks/adroit.yml --only task=door algorithm=Q2RL seed=0
benchmark: $(VENV)/installed
	status=0; for suite in $(SUITES); do $(BIN)/python -m sb3_q2rl benchmark run $$suite || status=1; done; \
	$(BIN)/python -m sb3_q2rl benchmark report $(SUITES) && exit $$status

# uv installs in a minute what takes pip many, but does not read pip's configuration: hand it pip's find-links, if any.
# Where Python may not write bytecode itself (containers often forbid it), compile now: each start then saves seconds.
$(VENV)/installed: setup.cfg setup.py pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	links=$$($(BIN)/pip config get global.find-links 2>/dev/null || $(BIN)/pip config get :env:.find-links 2>/dev/null || true); \
	links=$$(echo $$links | tr ' ' ','); \
	if [ -n "$$links" ] && [ -z "$$UV_FIND_LINKS" ]; then export UV_FIND_LINKS="$$links"; fi; \
	$(BIN)/uv pip install --python $(BIN)/python --constraint constraints.txt $(if $(PYTHONDONTWRITEBYTECODE),--compile-bytecode) \
		-e '.[zoo,d4rl,robosuite,robomimic,flax,franka,realsense,ray,dev]'
	touch $@
