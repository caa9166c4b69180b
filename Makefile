# Variables to set from outside:
#   PYTHON  the interpreter that creates the virtual environment   make PYTHON=python3.12 demo
#   VENV    its folder; an existing environment is used as it is   make VENV=$CONDA_PREFIX test
#   RUNS    how often repeat-lessons tests every lesson            make RUNS=3 repeat-lessons
PYTHON ?= python3
VENV ?= .venv
RUNS ?= 20

BIN := $(VENV)/bin
PY := $(BIN)/python
READY := $(VENV)/.rsepm-edu-installed

# Outputs that are the same on every machine: no clock times, no widget state (GitHub refuses half of one), and (in a
# second pass, since nbconvert coalesces before it executes) one piece of text a cell, however busy the machine was.
NEUTRAL := --ExecutePreprocessor.store_widget_state=False --ExecutePreprocessor.record_timing=False
COALESCED := --CoalesceStreamsPreprocessor.enabled=True

.DEFAULT_GOAL := help
.PHONY: help demo test check damaged lab notebooks voc-lessons grade-lessons repeat-lessons site browser bench clean \
	results-creatures results-multistage results-voc-sample results-voc-sample-gpu gpu-check

help: ## show this list
	@echo 'rsepm-edu: from image tags to masks'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-23s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## train RS + EPM on Creatures, print a table, write figures: about five minutes
	$(BIN)/rsepm-edu demo

# Two lessons at a time with a thread each: their small tensors gain little from a second thread.
LESSONS := OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile --nbval-lax --nbval-current-env notebooks

test: check ## run everything: linters, type checks, all tests, all notebooks
	$(LESSONS)
	$(PY) -m pytest -m 'not browser and not voc and not grades and not damaged'

check: $(READY) ## linters, types, spelling: ruff, mypy, codespell, the GitHub workflow
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/test.yml

damaged: $(READY) ## read ten thousand damaged files (make test reads one thousand)
	$(PY) -m pytest -m damaged tests/damaged

lab: $(READY) ## open the lessons in JupyterLab
	$(BIN)/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks # the glossary is in docs

notebooks: $(READY) ## run every lesson again and store its outputs
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace $(NEUTRAL) notebooks/*.ipynb
	$(BIN)/jupyter nbconvert --to notebook --inplace $(COALESCED) notebooks/*.ipynb

voc-lessons: $(READY) ## run every lesson on photographs (set RSEPM_EDU_VOC, RSEPM_EDU_VOC_NETWORK); slow on a CPU
	@test -n "$$RSEPM_EDU_VOC" && test -n "$$RSEPM_EDU_VOC_NETWORK" || { \
		echo 'set RSEPM_EDU_VOC to a VOC2012 folder, RSEPM_EDU_VOC_NETWORK to a checkpoint for it' >&2; exit 2; }
	$(PY) -m pytest -m voc tests/notebooks

grade-lessons: $(READY) ## grade every lesson with rsepm-edu check, unsolved and solved; about 15 minutes
	$(PY) -m pytest -m grades tests/course

repeat-lessons: $(READY) ## test every lesson 20 times in a row (RUNS=3: three times); an hour or more
	for run in $$(seq $(RUNS)); do echo "run $$run of $(RUNS)"; $(LESSONS) -q || exit 1; done

site: $(READY) ## build the lessons and the package's reference as web pages that work offline, in site/
	rm -rf site docs/api
	$(BIN)/sphinx-build -q -W --keep-going -d .doctrees -c docs . site
	rm -rf jupyter_execute # of MyST-NB; nobody reads it
	$(PY) docs/check_site.py site

browser: site ## test a lesson in JupyterLab, and the site, in Chromium (skipped if there is none)
	$(PY) -m pytest -m browser tests/browser

results-creatures: $(READY) ## regenerate results/creatures: every row, three seeds
	$(PY) data_scripts/make_results.py creatures

results-multistage: $(READY) ## regenerate results/creatures_multistage, with the networks of results-creatures
	$(PY) data_scripts/make_multistage_results.py creatures

results-voc-sample: $(READY) ## CAM, RS and RS + EPM on a sample of photographs, on a CPU (set RSEPM_EDU_VOC_SAMPLE and _WEIGHTS)
	@test -n "$$RSEPM_EDU_VOC_SAMPLE" || { echo 'set RSEPM_EDU_VOC_SAMPLE to a VOC2012 folder' >&2; exit 2; }
	$(PY) data_scripts/make_results.py voc-sample

results-voc-sample-gpu: $(READY) ## regenerate results/voc_sample_gpu, voc_sample_gpu_multistage on a GPU (set the same)
	@test -n "$$RSEPM_EDU_VOC_SAMPLE" || { echo 'set RSEPM_EDU_VOC_SAMPLE to a VOC2012 folder' >&2; exit 2; }
	$(PY) data_scripts/make_results.py voc-sample-gpu
	$(PY) data_scripts/make_multistage_results.py voc-sample-gpu

bench: $(READY) ## measure speed and memory of each part beside its reference implementation
	set -e; for script in benchmarks/*.py; do $(PY) "$$script"; done

gpu-check: $(READY) ## test and measure the GPU, at most eight minutes, into runs/gpu-check
	$(PY) benchmarks/gpu_check.py

# .venv by name: a VENV given from outside is not ours to delete.
clean: ## delete .venv, builds, the site, caches and runs/ with its trained networks
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .doctrees docs/api runs site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment is created once and updated when pyproject.toml changes. Packages in it that satisfy the lower bounds
# (your own torch, say) are kept.
$(READY): pyproject.toml | $(PY)
	$(PY) -m pip install --disable-pip-version-check -e '.[dev]'
	@touch $@

$(PY):
	@command -v $(PYTHON) >/dev/null || { \
		echo '$(PYTHON) was not found: install Python 3.11 or newer, or name one: make PYTHON=python3.12' >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1); name another: make PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo '$(PYTHON) cannot create virtual environments: install its venv module (Debian, Ubuntu: apt install python3-venv)' >&2; exit 2; }
	@echo 'Setting up $(VENV), once. torch is a large download: this takes minutes.'
	$(PYTHON) -m venv $(VENV)
