# make demo   the whole path on the embedded world, from nothing to the page
# make test   the tests that take a few minutes
# make test-long  cells that are killed or train together, the laws of every family: some minutes more
# make check  ruff and mypy
# make gpu-check  on a machine with a card: what only a card can show, in 8 minutes (docs/gpu.md); MINUTES=4 for less
# make test-slurm  cells on a real Slurm that it starts on this machine; with SLOW=1 also preemption and lost nodes
# make test-ray  cells on a Ray cluster that it starts on this machine; with SLOW=1 also killed nodes and drivers
# make test-gpu-rehearsal  CUDA paths on cards that are not there, at full size: minutes; SLOW=1: an hour
# make test-fuzz  thousands of damaged grids, adapters, data files and runs folders: an hour
# make test-postgres  MLflow on a PostgreSQL that goes and comes, under several processes: minutes
# make test-trackers  wandb, trackio and TensorBoard: what they have written is read back
# make test-quantised  every adapter method on a base in 8 and 4 bits, on the CPU
# make test-cloud  the SkyPilot recipe, by SkyPilot in an environment of its own, .venv-sky
# make test-slurm, test-ray  the laws of executors on a real Slurm and a real Ray of this machine; SLOW=1: lost nodes too
# make test-postgres, test-trackers, test-cloud  on a real PostgreSQL, other trackers, SkyPilot's own reader
# make install  .venv alone
#
# Each makes .venv first, once: it is made again only when the lock or the package's set-up changes.

# The first Python that zbench runs on; `make demo PYTHON=python3.12` names another.
PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,$(shell \
	$(name) -c 'import sys; print("$(name)" if (3, 11) <= sys.version_info[:2] <= (3, 13) else "")' \
	2>/dev/null)) python3)
VENV := .venv
INSTALLED := $(VENV)/.installed

.PHONY: install demo test test-long gpu-check test-slurm test-postgres test-trackers test-quantised test-cloud test-fuzz test-ray \
	test-gpu-rehearsal check

install: $(INSTALLED)

demo: $(INSTALLED)
	@$(VENV)/bin/zbench run-grid demo
	@$(VENV)/bin/zbench report demo
	@echo "MLflow:  runs/mlflow.db; to open it: $(VENV)/bin/mlflow ui --backend-store-uri sqlite:///runs/mlflow.db"

# One thread a process: on tensors as small as the tests', more threads are slower. One process more than there are
# cores, at most 4: whole runs wait for their workers. A file's tests stay together, and files keep their order: those
# with few tests are the long ones, and would come last.
PYTEST = OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -q -n $$($(VENV)/bin/python -c \
	'import os; print(min(4, (os.cpu_count() or 1) + 1))') --dist loadfile --no-loadscope-reorder

test: $(INSTALLED)
	@$(PYTEST) -m "not slow and not long and not gpu and not ray and not slurm and not rehearsal"

test-long: $(INSTALLED)
	@$(PYTEST) -m "long and not slow"

# Exit code 2, in one line, where no card is. ZBENCH_DATA_ROOT names real data; without it rows are made up.
gpu-check: $(INSTALLED)
	@$(VENV)/bin/python -m benchmarks.gpu_check $(if $(MINUTES),--minutes $(MINUTES))

# Beside those that `make test` has. Each starts a process of its own, whichever core is free. With SLOW=1 also every
# method on A100s and in deterministic mode, all models at full depth, and what `plan` says of them: an hour.
test-gpu-rehearsal: $(INSTALLED)
	@OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -q -rs -n 2 --dist worksteal --timeout 900 \
		-m "rehearsal$(if $(SLOW),, and not slow)" tests/gpu_rehearsal

# Other mutants every time: hypothesis prints how to repeat the one that fails.
test-fuzz: $(INSTALLED)
	@ZBENCH_FUZZ=1 OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -q -n 2 --dist loadfile --timeout 7200 tests/fuzz

# Skipped, with the reason, where PostgreSQL's programs are not here (Debian and Ubuntu: apt install postgresql).
test-postgres: $(VENV)/.trackers
	@$(VENV)/bin/python -m pytest -q -rs tests/tracking/test_postgres.py

# Trackio asks for an older pillow than requirements.lock has, and runs with that one: it is put into a folder beside.
# Where it cannot be had, its test is skipped, and says so.
test-trackers: $(VENV)/.trackers
	@test -e .trackio/.installed || { $(VENV)/bin/python -m pip install -q --disable-pip-version-check --no-deps --target .trackio \
		trackio==0.43.0 brotli==1.2.1 gradio-client==2.7.2 orjson==3.13.0 python-multipart==0.0.34 websockets==17.4 \
		&& touch .trackio/.installed; } || rm -rf .trackio
	@PYTHONPATH=.trackio $(VENV)/bin/python -m pytest -q -rs tests/tracking/beside tests/integration/test_trackers_beside.py

# bitsandbytes runs on a CPU too; it is put into a folder beside, so that the other tests see a machine without it.
test-quantised: $(INSTALLED)
	@test -e .quantised/.installed || { $(VENV)/bin/python -m pip install -q --disable-pip-version-check --no-deps \
		--target .quantised bitsandbytes==0.50.2 && touch .quantised/.installed; } || rm -rf .quantised
	@OMP_NUM_THREADS=1 PYTHONPATH=.quantised $(VENV)/bin/python -m pytest -q -rs tests/methods/test_quantised_laws.py \
		tests/models/test_quantization.py

# Skips, and says so, where Slurm is not installed (`scripts/start_slurm.sh install` as root).
test-slurm: $(INSTALLED)
	@OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -q -rs --timeout 1800 -m "slurm$(if $(SLOW),, and not slow)" \
		tests/execution/test_slurm.py tests/execution/test_slurm_laws.py

# A cluster is started once, for all of them.
test-ray: $(VENV)/.image
	@OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -q -rs --timeout 1800 -m "ray$(if $(SLOW),, and not slow)" \
		tests/execution/test_ray.py tests/execution/test_ray_laws.py

# SkyPilot cannot live beside requirements.lock. Where it cannot be had, its tests are skipped, and say so.
test-cloud: $(INSTALLED)
	@test -e .venv-sky/.installed || { echo "installing SkyPilot into .venv-sky" && $(PYTHON) -m venv .venv-sky \
		&& .venv-sky/bin/python -m pip install -q --disable-pip-version-check skypilot==0.14.1 \
		&& touch .venv-sky/.installed; } || rm -rf .venv-sky
	@$(VENV)/bin/python -m pytest -q -rs tests/test_cloud.py

check: $(INSTALLED)
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
		|| { echo "zbench needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is none: make $(or $(MAKECMDGOALS),demo) PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "$(PYTHON) lacks venv: install it (Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@echo "installing into $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install -q --disable-pip-version-check -r requirements.lock
	@$(VENV)/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# What tests of Ray and of the container's extras need, and those of trackers and of PostgreSQL.
$(VENV)/.image: $(INSTALLED) requirements-image.lock
	@$(VENV)/bin/python -m pip install -q --disable-pip-version-check -r requirements-image.lock && touch $@ \
		|| echo "requirements-image.lock could not be installed: what needs it is skipped"

$(VENV)/.trackers: $(INSTALLED) requirements-trackers.lock
	@$(VENV)/bin/python -m pip install -q --disable-pip-version-check -r requirements-trackers.lock && touch $@ \
		|| echo "requirements-trackers.lock could not be installed: what needs it is skipped"
