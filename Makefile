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
# Two makes may work on one profile at once: what the other has made meanwhile is not made again.
UNLESS_MADE = --unless-made $@ $^
export MAKE_BEGAN := $(or $(MAKE_BEGAN),$(shell date +%s))
PAGES := $(PYTHON) -m drgstudy.report $(PROFILE)
GUARD := $(PYTHON) -m drgstudy.guard $(PROFILE)

# One YAML file is one run, and its executed notebook, written last, is the file that stands for it in this graph.
executed = $(patsubst $(PARAMS)/%.yaml,$(DONE)/%.ipynb,$(sort $(wildcard $(addprefix $(PARAMS)/,$(1)))))
TRAIN := $(call executed,05-train-*.yaml)
ANALYSES := $(filter-out $(DONE)/05-train-% $(DONE)/13-%,$(call executed,0[4-9]-*.yaml 1*.yaml))
EARLY_TRAIN := $(call executed,23-early-train-*.yaml)
EARLY := $(call executed,2[12]-*.yaml 2[4-9]-*.yaml)
TRY := $(call executed,13-try-it.yaml)
# In the order in which they are made: first what Table 1 and Figures 1 and 2 need.
HEADLINE := $(patsubst %,$(DONE)/%.ipynb,00-index 01-hospital 02-harmonization 03-cohort 06-results)

help: ## Show this help
	@echo "make TARGET [PROFILE=$(PROFILE)]   profiles: $(notdir $(wildcard notebooks/params/*))"
	@sed -nE 's/^([a-z]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "  %-10s %s\n", $$1, $$2}'

env: $(INSTALLED) ## Build .venv from requirements.lock, or complete the active environment

report: $(REPORT)/index.html ## Run the whole DRG-LLaMA study and write reports/PROFILE/index.html
	@$(GUARD)
	@echo "the report: $(REPORT)/index.html"

early: $(EARLY) $(EARLY_TRAIN) ## Run the early-DRG study and write its part of the same report
	@$(PAGES)
	@$(GUARD)
	@echo "the report: $(REPORT)/index.html#part-2"

all: ## Run both studies, one after the other
	@$(MAKE) --no-print-directory report
	@$(MAKE) --no-print-directory early

data: $(DONE)/01-hospital.ipynb ## Make (or check) the raw tables in MIMIC's shape

cohort: $(DONE)/03-cohort.ipynb ## Raw tables to labelled stays

hospital: $(DONE)/04-hardness.ipynb ## Measure how hard the synthetic hospital is (PROFILE=full: at the paper's size)

train: $(TRAIN) ## Train every model of the profile and write its predictions

headline: $(HEADLINE) ## Table 1 and Figures 1 and 2 alone

test: $(INSTALLED) ## Run all tests; every notebook runs on the smoke profile
	$(PYTHON) -m pytest

stress: $(INSTALLED) ## Run the long suites: kills, full disks, mutants, large inputs (hours)
	$(PYTHON) -m pytest -m stress

verify: $(INSTALLED) ## Compare this report with the one that git holds, table by table
	@$(PYTHON) -m drgstudy.verify $(PROFILE)

bench: $(INSTALLED) ## Measure speed beside plain alternatives: reports/benchmarks.html (half an hour; keep the machine quiet)
	@$(MAKE) --no-print-directory data/full/executed/02-harmonization.ipynb PROFILE=full
	@$(MAKE) --no-print-directory cohort PROFILE=demo
	$(PYTHON) benchmarks/bench.py

lint: $(INSTALLED) ## Check code and notebooks with ruff
	$(PYTHON) -m ruff check lib tests benchmarks cluster notebooks
	$(PYTHON) -m ruff format --check lib tests benchmarks cluster

audit: $(INSTALLED) ## Ask pypi.org which pinned packages have known vulnerabilities
	@$(PYTHON) -m venv .make/audit && .make/audit/bin/pip install --quiet pip-audit
	@.make/audit/bin/pip-audit --strict --disable-pip --no-deps -r requirements.lock

notebook: $(INSTALLED) ## Open JupyterLab on the notebooks
	$(PYTHON) -m jupyterlab --notebook-dir=notebooks --LabApp.news_url=None \
	  --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate

clean: ## Remove what make made and git does not track, but for what people wrote under data/*/review
	@for profile in $(notdir $(wildcard notebooks/params/*)); do \
	  find "data/$$profile" -mindepth 1 -maxdepth 1 ! -name review -exec rm -rf {} + 2>/dev/null; done; true
	@git clean -fdXq reports

distclean: clean ## As clean, and the fetched models and .venv too
	@rm -rf data/models .venv

.PHONY: help env report early all data cohort hospital train headline test stress verify bench lint audit notebook clean distclean

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
ICU := $(addprefix $(LIB)/synthetic/,icu.py icu_notes.py physiology.py) \
  $(addprefix data/reference/synthetic/,icu.yaml vitals.csv physiology.csv apr_groups.csv)
HOSPITAL := $(filter-out $(ICU),$(wildcard $(LIB)/synthetic/*.py data/reference/synthetic/*))
$(DONE)/01-hospital.ipynb: $(HOSPITAL) $(LIB)/mimic.py $(LIB)/drgs.py $(FACTS)
$(DONE)/02-harmonization.ipynb: $(DONE)/01-hospital.ipynb $(addprefix $(LIB)/,harmonize.py drgs.py sheets.py) $(FACTS) \
  $(addprefix data/reference/,crosswalk.csv abbreviations.csv mimic_iii_demo_outcomes.csv) \
  $(wildcard $(shell sed -nE 's/^review: *"?([^" ]+).*/\1/p' $(PARAMS)/02-harmonization.yaml))
$(DONE)/03-cohort.ipynb: $(DONE)/02-harmonization.ipynb $(LIB)/cohort.py $(LIB)/notes.py
$(TRAIN): $(DONE)/03-cohort.ipynb $(addprefix $(LIB)/,training.py predictions.py labels.py) $(wildcard $(LIB)/models/*.py)
# Runs that a parameter file names, in its lines `run: a`, `runs: [a, b]` or `features_of: a`.
named = $(patsubst %,$(DONE)/$(2)-%.ipynb,$(shell sed -nE 's/\#.*//; s/^ *([a-z]+_)*(runs?|features_of): *//p' $(1) | tr -d '[],"'))
# A run that takes the frozen features of another run waits for it; an analysis waits for the runs that it reads.
$(foreach run,$(TRAIN),$(eval $(run): $(filter-out $(run),$(call named,$(PARAMS)/$(notdir $(run:.ipynb=.yaml)),05-train))))
$(foreach file,$(ANALYSES) $(TRY),$(eval $(file): $(call named,$(PARAMS)/$(basename $(notdir $(file))).yaml,05-train)))
$(foreach file,$(EARLY),$(eval $(file): $(call named,$(PARAMS)/$(basename $(notdir $(file))).yaml,23-early-train)))

# The page is made again as steps finish: it says what is still to come.
$(DONE)/05-train-%.ipynb: notebooks/05-train.ipynb $(PARAMS)/05-train-%.yaml | $(INSTALLED)
	@$(STUDY) $(PARAMS)/05-train-$*.yaml $(UNLESS_MADE)
	@$(PAGES)
$(DONE)/23-early-train-%.ipynb: notebooks/23-early-train.ipynb $(PARAMS)/23-early-train-%.yaml | $(INSTALLED)
	@$(STUDY) $(PARAMS)/23-early-train-$*.yaml $(UNLESS_MADE)
	@$(PAGES)
$(EARLY): $(DONE)/%.ipynb: notebooks/%.ipynb $(PARAMS)/%.yaml $(DONE)/20-icu.ipynb | $(INSTALLED)
	@$(STUDY) $(PARAMS)/$*.yaml $(UNLESS_MADE)
	@$(PAGES)
$(ANALYSES): $(DONE)/%.ipynb: notebooks/%.ipynb $(PARAMS)/%.yaml $(DONE)/03-cohort.ipynb | $(INSTALLED)
	@$(STUDY) $(PARAMS)/$*.yaml $(UNLESS_MADE)
	@$(PAGES)
$(DONE)/%.ipynb: notebooks/%.ipynb $(PARAMS)/%.yaml | $(INSTALLED)
	@$(STUDY) $(PARAMS)/$*.yaml $(UNLESS_MADE)
# What an analysis says lies in the report; where that was removed, it says it again.
$(foreach file,$(ANALYSES) $(EARLY),$(if $(wildcard $(REPORT)/numbers/$(basename $(notdir $(file))).json),,$(eval $(file): FORCE)))
FORCE:
# Every file is written whole or not at all: a page that fails, or Ctrl-C, must not cost an hour of training.
.PRECIOUS: $(DONE)/%.ipynb $(TRAIN) $(EARLY_TRAIN) $(ANALYSES) $(EARLY)

$(ANALYSES): $(addprefix $(LIB)/,disclosure.py tables.py plots.py metrics.py bootstrap.py) data/reference/published_tables.csv
$(DONE)/04-hardness.ipynb: $(HOSPITAL) $(LIB)/models/tfidf.py
$(DONE)/06-results.ipynb: $(LIB)/spline.py
$(DONE)/07-two-labels.ipynb: $(LIB)/labels.py
$(DONE)/09-errors.ipynb: $(LIB)/errors.py $(LIB)/sheets.py data/reference/published_drgs.csv $(wildcard $(DATA)/review/errors.csv)
$(DONE)/11-trust.ipynb: $(LIB)/calibration.py $(LIB)/casemix.py
$(DONE)/12-why.ipynb $(TRY): $(LIB)/attribution.py
$(TRY): $(LIB)/notes.py $(LIB)/sheets.py

# The early-DRG study.
COHORTS := $(DONE)/21-early-cohort.ipynb
MEASURED := $(DONE)/22-measurements.ipynb
APR := $(addprefix data/reference/,aprdrg_fy2013.csv msdrg.csv)
$(DONE)/20-icu.ipynb: $(HOSPITAL) $(ICU) $(LIB)/mimic.py $(LIB)/drgs.py $(FACTS) $(APR) data/reference/measurements.csv
$(COHORTS): $(LIB)/early.py $(LIB)/early_plots.py $(APR)
$(MEASURED): $(COHORTS) $(LIB)/measurements.py $(LIB)/early_plots.py data/reference/measurements.csv
$(EARLY_TRAIN): $(COHORTS) $(addprefix $(LIB)/,early_runs.py training.py predictions.py labels.py) $(wildcard $(LIB)/models/*.py)
$(filter $(DONE)/23-early-train-lstm-%,$(EARLY_TRAIN)): $(MEASURED)
$(filter-out $(COHORTS) $(MEASURED),$(EARLY)): $(addprefix $(LIB)/,early_tables.py early_plots.py disclosure.py tables.py plots.py) \
  $(wildcard data/reference/published_early*.csv)
$(filter %/24-early-results.ipynb %/28-early-splits.ipynb,$(EARLY)): $(LIB)/metrics.py $(LIB)/bootstrap.py
$(filter %/25-case-mix.ipynb %/26-regression.ipynb,$(EARLY)): $(LIB)/casemix.py
$(filter %/27-attention.ipynb,$(EARLY)): $(LIB)/attribution.py

# The analyses of runs that are there already come before those that need further runs.
LATER := $(patsubst %,$(DONE)/%.ipynb,07-two-labels 10-splits 08-size-and-length)
$(REPORT)/index.html: $(HEADLINE) $(filter-out $(LATER),$(ANALYSES)) $(TRY) $(filter $(ANALYSES),$(LATER)) $(TRAIN) $(LIB)/report.py $(wildcard $(LIB)/templates/*)
	@$(PAGES)
