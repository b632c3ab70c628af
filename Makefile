.DEFAULT_GOAL := help
.PHONY: help setup train sweep claims report compare bench bench-gpu bench-peers ui relocate gc check restore test test-all test-night test-services docs record-losses reference lint
PYTHON ?= python3
PORT ?= 5000
BIN := .venv/bin
# Two tests at once, of one thread each: two of two threads starve each other on two cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: .venv/ready  ## make .venv from requirements.lock if it is missing or older

.venv/ready: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed, $(PYTHON) is " + sys.version.split()[0])'
	@echo "Setting up .venv from requirements.lock: PyTorch with its GPU libraries, Lightning, Hydra, MLflow (about 7 GB, 2 to 8 minutes; the last of them, while packages are unpacked, are silent)."
	@if command -v uv >/dev/null; then \
		uv venv --quiet --allow-existing --python "$$(command -v $(PYTHON))" .venv && uv pip install --python $(BIN)/python -r requirements.lock; \
	else \
		$(PYTHON) -m venv .venv && $(BIN)/python -m pip install --progress-bar off --disable-pip-version-check -r requirements.lock; \
	fi
	@touch $@
	@echo "Ready. make train trains a first network, make help lists the commands."

train: setup  ## train cnn_pool with adadelta on the embedded data (ARGS="..." adds or changes anything)
	$(BIN)/python src/train.py model=cnn_pool optim=adadelta data=mnist5k $(ARGS)

sweep: setup  ## run the seven small networks x three optimizers, what is not done yet (ARGS="sweep=smoke sweep.seeds=3")
	$(BIN)/python src/train.py $(if $(filter sweep=%,$(ARGS)),,sweep=grid) $(ARGS)

claims: NAMED = $(patsubst claims=%,%,$(filter claims=%,$(ARGS)))
claims: DRY = $(addprefix sweep.dry_run=,true True TRUE)
claims: setup  ## run the tutorials' claims over five seeds, what is not done yet, and say which hold (hours; ARGS="claims=fashion")
	@$(if $(NAMED),names=claim=$$(PYTHONPATH=src $(BIN)/python -m digitlab claims list $(NAMED) --names) || exit;) \
	$(BIN)/python src/train.py sweep=claims $$names $(filter-out claims=%,$(ARGS)); swept=$$?; \
	$(if $(filter $(DRY),$(ARGS)),,$(BIN)/python src/report.py report.sweep=claims || exit;) exit $$swept

report: setup  ## say which differences in the latest sweep are real, in reports/ (ARGS="report.sweep=smoke")
	$(BIN)/python src/report.py $(ARGS)

compare: setup  ## say what differs between two runs, and which is better (ARGS="latest best"; docs/report.md)
	@PYTHONPATH=src $(BIN)/python -m digitlab compare $(ARGS)

bench: setup  ## measure the speed side by side on this CPU (about an hour; docs/performance.md)
	@for script in step parts components distributed pipeline startup cells plan memory report_2000 large_store serve; do PYTHONPATH=src $(BIN)/python benchmarks/$$script.py || exit 1; done

bench-gpu: setup  ## measure what a GPU gives; "not measured" where there is none
	@PYTHONPATH=src $(BIN)/python benchmarks/gpu.py

bench-peers: setup .venv-peers/ready  ## measure against Keras, a Lightning template and the plain loop (20 minutes)
	@PYTHONPATH=src $(BIN)/python benchmarks/peers.py .venv-peers/bin/python

.venv-peers/ready: benchmarks/peers/requirements.txt
	@echo "Setting up .venv-peers: Keras and TensorFlow, apart from the project's own packages."
	@$(PYTHON) -m venv .venv-peers && .venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

ui: setup  ## open the MLflow UI on what was tracked: http://127.0.0.1:5000 (PORT=...)
	@PYTHONPATH=src $(BIN)/python -m digitlab ui --port $(PORT) $(ARGS)

relocate: setup  ## make runs find their artifacts again after mlruns/ was moved (ARGS=--dry-run to see what that changes)
	PYTHONPATH=src $(BIN)/python -m digitlab store relocate $(ARGS)

gc: setup  ## remove deleted runs and artifacts that no run needs (ARGS=--dry-run lists them)
	PYTHONPATH=src $(BIN)/python -m digitlab store gc $(ARGS)

check: setup  ## say whether the store is sound, and of when its daily copy is
	PYTHONPATH=src $(BIN)/python -m digitlab store check

restore: setup  ## put the daily copy in the place of a damaged store, which is kept (ARGS=--dry-run to see)
	PYTHONPATH=src $(BIN)/python -m digitlab store restore $(ARGS)

test: setup  ## run the fast tests (offline, under 4 minutes on 2 cores)
	$(PYTEST) -m "not slow" $(ARGS)

test-all: setup  ## run the slow tests too: kills, outages, browser, README
	$(PYTEST) -m "not services" $(ARGS)

test-night: setup  ## repeat kills, faults and drawn inputs in large numbers (some hours)
	DIGITLAB_MIXES=200 HOSTILE_EXAMPLES=2000 HOSTILE_BODIES=10000 $(PYTEST) -m "(night or drawn) and not services" $(ARGS)

test-services: setup .venv-services/ready  ## test on a server with PostgreSQL and S3, on SLURM and on Ray, started here (half an hour)
	OMP_NUM_THREADS=1 .venv-services/bin/python -m pytest tests/services -m services -s $(ARGS)

.venv-services/ready: tests/services/requirements.txt
	@if ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 && ! command -v initdb >/dev/null && command -v apt-get >/dev/null && [ $$(id -u) = 0 ]; then \
		echo "installing postgresql" && apt-get update -qq && apt-get install -y -qq --no-install-recommends postgresql >/dev/null; fi
	@if ! command -v slurmctld >/dev/null && command -v apt-get >/dev/null && [ $$(id -u) = 0 ]; then \
		echo "installing slurm" && apt-get update -qq && apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null; fi
	@echo "Setting up .venv-services: what an MLflow server on PostgreSQL and S3 needs, and Ray, beside the project's own packages."
	@$(PYTHON) -m venv .venv-services
	@$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' > $$(echo .venv-services/lib/python3*/site-packages)/project.pth
	@.venv-services/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

docs: setup  ## check every link of README and guide, and run every command in them (6 minutes)
	$(PYTEST) tests/docs

record-losses: setup  ## write the table of recorded losses anew, after a change of results that is meant
	PYTHONPATH=src $(BIN)/python tests/training/recorded_losses.py

reference: setup  ## write docs/reference.md and the JSON schemas of conf/ again, after a change of a key
	PYTHONPATH=src $(BIN)/python -m digitlab.config.reference

lint: setup  ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
