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
INSTALLED := .make/installed$(subst /,-,$(ENV))
export PYTHONPATH := $(CURDIR)/lib
export PIP_DISABLE_PIP_VERSION_CHECK := 1
STUDY := $(PYTHON) -m drgstudy.study

# One YAML file is one run, and its executed notebook is the file that stands for it in this graph.
TRAIN := $(patsubst $(PARAMS)/%.yaml,$(DONE)/%.ipynb,$(sort $(wildcard $(PARAMS)/04-train-*.yaml)))
ALL := $(DONE)/00-index.ipynb $(DONE)/01-hospital.ipynb $(DONE)/02-harmonization.ipynb $(DONE)/03-cohort.ipynb \
  $(TRAIN) $(DONE)/05-results.ipynb

help: ## Show this help
	@echo "make TARGET [PROFILE=$(PROFILE)]   profiles: $(notdir $(wildcard notebooks/params/*))"
	@sed -nE 's/^([a-z]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "  %-10s %s\n", $$1, $$2}'

env: $(INSTALLED) ## Build .venv from requirements.lock, or complete the active environment

report: $(REPORT)/index.html ## Run the whole study and write reports/PROFILE/index.html
	@echo "the report: $(REPORT)/index.html"

data: $(DONE)/01-hospital.ipynb ## Make (or check) the raw tables in MIMIC's shape

cohort: $(DONE)/03-cohort.ipynb ## Raw tables to labelled stays

train: $(TRAIN) ## Train every model of the profile and write its predictions

results: $(DONE)/05-results.ipynb ## Statistics, tables and figures

test: $(INSTALLED) ## Run all tests; every notebook runs on the smoke profile
	$(PYTHON) -m pytest

lint: $(INSTALLED) ## Check code and notebooks with ruff
	$(PYTHON) -m ruff check lib tests notebooks
	$(PYTHON) -m ruff format --check lib tests

notebook: $(INSTALLED) ## Open JupyterLab on the notebooks
	$(PYTHON) -m jupyterlab --notebook-dir=notebooks

clean: ## Remove what make made and git does not track (models and .venv stay; make distclean removes them too)
	@for profile in $(notdir $(wildcard notebooks/params/*)); do rm -rf "data/$$profile"; done
	@git clean -fdXq reports

distclean: clean ## make clean, and the fetched models and .venv
	@rm -rf data/models .make .venv

.PHONY: help env report data cohort train results test lint notebook clean distclean

.venv/bin/python:
	@for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && exec $$python -m venv .venv; \
	done; echo "error: Python 3.11 or newer, with venv, is needed; none of python3, python3.11 … python3.14 is that" >&2; exit 1

$(INSTALLED): requirements.lock pyproject.toml $(if $(filter .venv,$(ENV)),| .venv/bin/python)
	@echo "installing the pinned packages into $(ENV) (some 200 MB of CPU builds; a few minutes) …"
	$(PYTHON) -m pip install --quiet --progress-bar on -r requirements.lock
	$(PYTHON) -m pip install --quiet --no-deps --editable .
	@mkdir -p $(@D) && touch $@

# What each step reads beyond its own notebook and parameters. A change of plots.py or report.py trains nothing again.
$(DONE)/01-hospital.ipynb: $(wildcard $(LIB)/synthetic/*.py data/reference/synthetic/*) $(LIB)/mimic.py
$(DONE)/02-harmonization.ipynb: $(DONE)/01-hospital.ipynb $(LIB)/harmonize.py $(LIB)/drgs.py $(wildcard data/reference/*.csv)
$(DONE)/03-cohort.ipynb: $(DONE)/02-harmonization.ipynb $(LIB)/cohort.py $(LIB)/notes.py
$(TRAIN): $(DONE)/03-cohort.ipynb $(LIB)/training.py $(LIB)/predictions.py
$(DONE)/05-results.ipynb: $(TRAIN) $(addprefix $(LIB)/,metrics.py bootstrap.py spline.py plots.py report.py) \
  data/reference/published_tables.csv

# A run that takes the frozen features of another run waits for it.
$(DONE)/04-train-llama.ipynb: $(filter $(DONE)/04-train-probe.ipynb,$(TRAIN))
$(DONE)/04-train-%.ipynb: notebooks/04-train.ipynb $(PARAMS)/04-train-%.yaml | $(INSTALLED)
	@$(STUDY) $(PARAMS)/04-train-$*.yaml
$(DONE)/%.ipynb: notebooks/%.ipynb $(PARAMS)/%.yaml | $(INSTALLED)
	@$(STUDY) $(PARAMS)/$*.yaml

$(REPORT)/index.html: $(ALL) $(LIB)/report.py $(wildcard $(LIB)/templates/*)
	@$(PYTHON) -m drgstudy.report $(PROFILE)
