# Needs make and Python 3.11, 3.12 or 3.13; everything else goes into .venv.

# The Python of .venv: the first of these that runs, unless PYTHON= names another.
ifndef PYTHON
PYTHON := $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
endif
# Test processes. Each runs single-threaded, so that they do not fight over cores.
JOBS ?= 2

VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

# The tests that need neither SMAX nor TorchRL, for other Pythons and other versions of packages.
CORE_TESTS := tests/test_*.py tests/wrapper tests/vector tests/matching tests/demonstrations tests/lockstep tests/tabular tests/sb3
CORE := -e '.[sb3,theory]' mpe2 pytest pytest-xdist
OTHER := .venv-$(notdir $(PYTHON))

# JAX keeps its compiled programs here, so that only the first run pays for them.
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.5
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help install demo test test-python test-lowest test-smac check-agilerl check-benchmarl check-environments check-tianshou mutate lint docs dist benchmark clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## set up .venv with every extra, in the versions of constraints.txt

# The stamp: installed once, and again when the wanted packages or the version change.
$(INSTALLED): pyproject.toml constraints.txt dm2_wrappers/__init__.py
	@test -n '$(PYTHON)' || { echo "Found no Python 3.11 or newer: install one, or name it: make PYTHON=/path/to/python"; exit 1; }
	@$(RUN) -m pip --version >/dev/null 2>&1 || { echo "Creating $(VENV) with $(PYTHON)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing into $(VENV): a few minutes the first time"
	@$(RUN) -m pip install --quiet -c constraints.txt -e '.[all,dev,docs]'
	@touch $@

demo: install  ## train with and without DM2 on 5m_vs_6m: progress bars, a table and a learning curve
	@$(RUN) examples/demo.py

# By file, so that the tests of a file share the environments they compile. They compile many and take few steps in each,
# so JAX spends little time on optimizing them.
test: install  ## run the tests
	@OMP_NUM_THREADS=1 JAX_DISABLE_MOST_OPTIMIZATIONS=1 $(RUN) -m pytest -q -n $(JOBS) --dist loadfile

test-python:  ## run the core tests on another Python, in an environment of its own: make test-python PYTHON=python3.12
	@$(PYTHON) -m venv $(OTHER)
	@$(OTHER)/bin/python -m pip install --quiet -c constraints.txt $(CORE)
	@OMP_NUM_THREADS=1 $(OTHER)/bin/python -m pytest -q -n $(JOBS) --dist loadfile $(CORE_TESTS)

test-lowest:  ## run the core tests with the lowest versions of packages that are allowed
	@$(PYTHON) -m venv .venv-lowest
	@.venv-lowest/bin/python -m pip install --quiet -c constraints-lowest.txt $(CORE)
	@OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -q -n $(JOBS) --dist loadfile $(CORE_TESTS)

# Learners whose packages do not fit beside the others'.
check-tianshou:  ## test the Tianshou example, in an environment of its own
	@$(PYTHON) -m venv .venv-tianshou
	@.venv-tianshou/bin/python -m pip install --quiet -c constraints-tianshou.txt -e '.[sb3,tianshou,examples]' pytest
	@OMP_NUM_THREADS=1 .venv-tianshou/bin/python -m pytest -q tests/examples/test_learners.py -k tianshou

check-agilerl:  ## test the AgileRL example, in an environment of its own
	@$(PYTHON) -m venv .venv-agilerl
	@.venv-agilerl/bin/python -m pip install --quiet -c constraints-agilerl.txt -e '.[agilerl,examples]' pytest
	@OMP_NUM_THREADS=1 .venv-agilerl/bin/python -m pytest -q tests/examples/test_learners.py tests/examples/test_agilerl.py -k agilerl

check-benchmarl:  ## test the BenchMARL callback and example, in an environment of its own
	@$(PYTHON) -m venv .venv-benchmarl
	@.venv-benchmarl/bin/python -m pip install --quiet -c constraints-benchmarl.txt -e '.[examples]' benchmarl pytest
	@OMP_NUM_THREADS=1 .venv-benchmarl/bin/python -m pytest -q tests/torchrl/test_benchmarl.py tests/examples/test_learners.py -k benchmarl

check-environments:  ## test on environments of other packages (minutes), in an environment of its own
	@$(PYTHON) -m venv .venv-environments
	@.venv-environments/bin/python -m pip install --quiet -c constraints.txt -e '.[sb3,supersuit,examples]' pytest \
		-r requirements-environments.txt
	@OMP_NUM_THREADS=1 SDL_VIDEODRIVER=dummy .venv-environments/bin/python -m pytest -q tests/envs/test_other_packages.py

# SMAC_PYTHON: a Python with smac and this project's extra sb3; .venv's if not given. SC2PATH: where StarCraft II is.
test-smac: $(if $(SMAC_PYTHON),,install)  ## test on genuine SMAC and StarCraft II (EPISODES=200 STEPS=20000 for the long run)
	@OMP_NUM_THREADS=1 PYTHONPATH=$(CURDIR) $(or $(SMAC_PYTHON),$(RUN)) -m pytest -q -s -m smac \
		tests/envs/test_contract.py tests/envs/test_smac_integration.py

# Cosmic Ray is installed on demand, because only this target needs it. Takes minutes to hours: see tests/mutate for options.
MODULE ?= dm2_wrappers/matching
mutate: install  ## list changes to MODULE (default dm2_wrappers/matching) that no test notices
	@$(RUN) -m pip install --quiet 'cosmic-ray>=8.4,<9' 'coverage>=7.6'
	@nice -n 19 $(RUN) -m tests.mutate $(MODULE) --children $(JOBS) $(OPTIONS)

lint: install  ## check style, formatting and types
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy

docs: install  ## build the documentation site into site/
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet

dist:  ## build the source distribution and the wheel into dist/, and check them
	@$(PYTHON) -m venv .venv-dist
	@.venv-dist/bin/python -m pip install --quiet build twine
	@rm -rf dist build
	@.venv-dist/bin/python -m build
	@.venv-dist/bin/python -m twine check --strict dist/*

benchmark: install  ## print the measured speeds
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; $(RUN) "$$script"; done

clean:  ## remove caches, build outputs and all environments but .venv
	@rm -rf .cache .mypy_cache .pytest_cache .ruff_cache build dist site .venv-*
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
