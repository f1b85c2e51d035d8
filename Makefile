# The study as a graph of real files. `make` or `make help` explains the targets.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.SUFFIXES:
.DEFAULT_GOAL := help

PROFILE ?= demo
PARAMS := notebooks/params/$(PROFILE)
DATA := data/$(PROFILE)
DONE := $(DATA)/executed
REPORT := reports/$(PROFILE)
LIB := lib/drgstudy

# An active environment is used as it is found; conda's base counts as none.
ifneq ($(VIRTUAL_ENV),)
  ENV := $(VIRTUAL_ENV)
else ifneq ($(filter-out base,$(CONDA_DEFAULT_ENV)),)
  ENV := $(CONDA_PREFIX)
else
  ENV := .venv
endif
PYTHON := $(ENV)/bin/python
INSTALLED := $(ENV)/.drgstudy-installed
export PYTHONPATH := $(CURDIR)/lib
export PIP_DISABLE_PIP_VERSION_CHECK := 1
STUDY := $(PYTHON) -m drgstudy.study

# One YAML file is one run, and its executed notebook is the file that stands for it in this graph.
TRAIN := $(patsubst $(PARAMS)/%.yaml,$(DONE)/%.ipynb,$(sort $(wildcard $(PARAMS)/05-train-*.yaml)))
# Only a profile with the synthetic hospital has this step.
HOSPITAL := $(if $(wildcard $(PARAMS)/04-hardness.yaml),$(REPORT)/hospital.json)
ALL := $(DONE)/00-index.ipynb $(DONE)/01-hospital.ipynb $(DONE)/02-harmonization.ipynb $(DONE)/03-cohort.ipynb $(TRAIN)

help: ## Show this help
	@echo "make TARGET [PROFILE=$(PROFILE)]   profiles: $(notdir $(wildcard notebooks/params/*))"
	@sed -nE 's/^([a-z]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "  %-10s %s\n", $$1, $$2}'

env: $(INSTALLED) ## Build .venv from requirements.lock, or complete the active environment

report: $(REPORT)/index.html ## Run the whole study and write reports/PROFILE/index.html
	@echo "the report: $(REPORT)/index.html"

data: $(DONE)/01-hospital.ipynb ## Make (or check) the raw tables in MIMIC's shape

cohort: $(DONE)/03-cohort.ipynb ## Raw tables to labelled stays

hospital: $(HOSPITAL) ## Measure how hard the synthetic hospital is (PROFILE=full: at the paper's size)

train: $(TRAIN) ## Train every model of the profile and write its predictions

results: $(REPORT)/numbers.json ## Statistics, tables and figures

test: $(INSTALLED) ## Run all tests; every notebook runs on the smoke profile
	$(PYTHON) -m pytest

lint: $(INSTALLED) ## Check code and notebooks with ruff
	$(PYTHON) -m ruff check lib tests benchmarks notebooks
	$(PYTHON) -m ruff format --check lib tests benchmarks

notebook: $(INSTALLED) ## Open JupyterLab on the notebooks
	$(PYTHON) -m jupyterlab --notebook-dir=notebooks

clean: ## Remove what make made and git does not track
	@for profile in $(notdir $(wildcard notebooks/params/*)); do rm -rf "data/$$profile"; done
	@git clean -fdXq reports

distclean: clean ## As clean, and the fetched models and .venv too
	@rm -rf data/models .venv

.PHONY: help env report data cohort hospital train results test lint notebook clean distclean

.venv/bin/python:
	@for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && exec $$python -m venv .venv; \
	done; echo "error: Python 3.11 or newer, with venv, is needed; none of python3, python3.11 … python3.14 is that" >&2; exit 1

$(INSTALLED): requirements.lock pyproject.toml $(if $(filter .venv,$(ENV)),| .venv/bin/python)
	@echo "installing the pinned packages into $(ENV); a few minutes …"
	$(PYTHON) -m pip install -r requirements.lock
	$(PYTHON) -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# What each step reads beyond its own notebook and parameters. A change of report.py or the templates trains nothing again.
FACTS := $(addprefix data/reference/,msdrg.csv msdrg_v34_titles.csv)
$(DONE)/00-index.ipynb: $(wildcard $(PARAMS)/*.yaml)
$(DONE)/01-hospital.ipynb: $(wildcard $(LIB)/synthetic/*.py data/reference/synthetic/*) $(LIB)/mimic.py $(LIB)/drgs.py $(FACTS)
$(DONE)/02-harmonization.ipynb: $(DONE)/01-hospital.ipynb $(LIB)/harmonize.py $(LIB)/drgs.py $(FACTS) \
  $(addprefix data/reference/,crosswalk.csv abbreviations.csv mimic_iii_demo_outcomes.csv) \
  $(wildcard $(shell sed -nE 's/^review: *"?([^" ]+).*/\1/p' $(PARAMS)/02-harmonization.yaml))
$(DONE)/03-cohort.ipynb: $(DONE)/02-harmonization.ipynb $(LIB)/cohort.py $(LIB)/notes.py
$(TRAIN): $(DONE)/03-cohort.ipynb $(addprefix $(LIB)/,training.py predictions.py labels.py) $(wildcard $(LIB)/models/*.py)
# A run that takes the frozen features of another run waits for it.
$(foreach run,$(TRAIN),$(eval $(run): $(foreach other,$(shell sed -n 's/^  features_of: *\([^ ]*\).*/\1/p' \
  $(PARAMS)/$(notdir $(run:.ipynb=.yaml))),$(DONE)/05-train-$(other).ipynb)))

$(DONE)/05-train-%.ipynb: notebooks/05-train.ipynb $(PARAMS)/05-train-%.yaml | $(INSTALLED)
	@$(STUDY) $(PARAMS)/05-train-$*.yaml
$(DONE)/%.ipynb: notebooks/%.ipynb $(PARAMS)/%.yaml | $(INSTALLED)
	@$(STUDY) $(PARAMS)/$*.yaml

# Known by the files that they write last under reports/PROFILE: delete those, and they are made again.
$(REPORT)/hospital.json: $(DONE)/03-cohort.ipynb notebooks/04-hardness.ipynb $(PARAMS)/04-hardness.yaml \
  $(wildcard $(LIB)/synthetic/*.py) $(LIB)/models/tfidf.py $(LIB)/plots.py | $(INSTALLED)
	@$(STUDY) $(PARAMS)/04-hardness.yaml
$(REPORT)/numbers.json: $(TRAIN) $(HOSPITAL) $(addprefix $(LIB)/,metrics.py bootstrap.py spline.py plots.py report.py) \
  data/reference/published_tables.csv notebooks/06-results.ipynb $(PARAMS)/06-results.yaml | $(INSTALLED)
	@$(STUDY) $(PARAMS)/06-results.yaml

$(REPORT)/index.html: $(ALL) $(REPORT)/numbers.json $(LIB)/report.py $(wildcard $(LIB)/templates/*)
	@$(PYTHON) -m drgstudy.report $(PROFILE)
