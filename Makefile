# Needs make and Python 3.11; everything else goes into .venv.

PYTHON ?= python3.11
# Test processes. Each runs single-threaded, so that they do not fight over cores.
JOBS ?= 2

VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

# JAX keeps its compiled programs here, so that only the first run pays for them.
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.5
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help install demo test test-smac mutate lint docs benchmark clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## set up .venv with every extra, in the versions of constraints.txt

# The stamp: installed once, and again when the wanted packages change.
$(INSTALLED): pyproject.toml constraints.txt
	@$(RUN) -m pip --version >/dev/null 2>&1 || { echo "Creating $(VENV) with $(PYTHON)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing into $(VENV): a few minutes the first time"
	@$(RUN) -m pip install --quiet -c constraints.txt -e '.[all,dev,docs]'
	@touch $@

demo: install  ## DM2 beside IPPO on 5m_vs_6m, with a table and a learning curve
	@$(RUN) examples/demo.py

# By file, so that the tests of a file share the environments they compile.
test: install  ## run the tests
	@OMP_NUM_THREADS=1 $(RUN) -m pytest -q -n $(JOBS) --dist loadfile

# SMAC_PYTHON: a Python with smac and this project's extra sb3; .venv's if not given. SC2PATH: where StarCraft II is.
test-smac: $(if $(SMAC_PYTHON),,install)  ## test on genuine SMAC and StarCraft II (EPISODES=200 STEPS=20000 for the long run)
	@OMP_NUM_THREADS=1 PYTHONPATH=$(CURDIR) $(or $(SMAC_PYTHON),$(RUN)) -m pytest -q -s -m smac \
		tests/envs/test_contract.py tests/envs/test_smac_integration.py

# mutmut is installed on demand, because only this target needs it. Takes minutes to hours: see tests/mutate for options.
MODULE ?= dm2_wrappers/matching
mutate: install  ## list changes to MODULE (default dm2_wrappers/matching) that no test notices
	@$(RUN) -m pip install --quiet 'mutmut>=3.8,<4'
	@nice -n 19 $(RUN) -m tests.mutate $(MODULE) --children $(JOBS)

lint: install  ## check style, formatting and types
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy

docs: install  ## build the documentation site into site/
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet

benchmark: install  ## print the measured speeds
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; $(RUN) "$$script"; done

clean:  ## remove caches and build outputs (not .venv, runs and results)
	@rm -rf .cache .mypy_cache .pytest_cache .ruff_cache build dist site
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
