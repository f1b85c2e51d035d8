# The study as a graph of real files. `make` or `make help` explains the targets.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.SUFFIXES:
.DEFAULT_GOAL := help
ifeq ($(OS),Windows_NT)
  $(error This needs Linux or macOS: on Windows run make inside WSL2)
endif

PROFILE ?= demo
PARAMS := notebooks/params/$(PROFILE)
DATA := data/$(PROFILE)
DONE := $(DATA)/executed
REPORT := reports/$(PROFILE)

# An active environment is used as it is. Conda's base environment does not count as active.
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
export MAKE_BEGAN := $(or $(MAKE_BEGAN),$(shell date +%s))
PAGES := $(PYTHON) -m drgstudy.report $(PROFILE)
GUARD := $(PYTHON) -m drgstudy.guard $(PROFILE)

# What each step reads, and so waits for, is found in the code by lib/drgstudy/study/graph.py. Under -n nothing is
# installed for that.
GRAPH := .make/$(PROFILE).mk
DRY := $(findstring n,$(firstword -$(MAKEFLAGS)))
ifneq ($(filter-out help doctor env test stress rehearse verify keep bench lint audit notebook clean distclean,$(or $(MAKECMDGOALS),help)),)
ifneq ($(if $(DRY),$(wildcard $(INSTALLED)),yes),)
$(GRAPH): FORCE $(if $(DRY),,| $(INSTALLED))
	@$(PYTHON) -m drgstudy.study.graph $(PROFILE) $@
include $(GRAPH)
endif
endif

help: ## Show this help
	@echo "make TARGET [PROFILE=$(PROFILE)]   profiles: $(notdir $(wildcard notebooks/params/*))"
	@sed -nE 's/^([a-z]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "  %-10s %s\n", $$1, $$2}'

doctor: ## Say what is there and what is missing on this machine, and what to do
	@for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	  $$python -I -c "" 2>/dev/null && exec $$python -I lib/drgstudy/doctor.py "$(ENV)"; \
	done; echo "MISSING Python       none; install Python 3.11 or newer" >&2; exit 1

env: $(INSTALLED) ## Build .venv from requirements.lock, or complete the active environment

report: $(REPORT)/index.html ## Run the whole DRG-LLaMA study and write reports/PROFILE/index.html
	@$(GUARD)
	@echo "the report: $(REPORT)/index.html"

early: ## Run the early-DRG study and write its part of the same report
# Every study but the first has a target of this kind, named by its entry in notebooks/studies.yaml.
.PHONY: $(goals)
$(wordlist 2,99,$(goals)):
	@$(PAGES)
	@$(GUARD)
	@echo "the report: $(REPORT)/index.html"

all: ## Run every study, one after the other
	@$(foreach goal,$(goals),$(MAKE) --no-print-directory $(goal) COMING='$(goals)' &&) true

# Whatever writes pages ends with the guard.
data cohort hospital train headline:
	@$(GUARD)
data: $(DONE)/01-hospital.ipynb ## Make (or check) the raw tables in MIMIC's shape
cohort: $(DONE)/03-cohort.ipynb ## Raw tables to labelled stays
hospital: $(DONE)/04-hardness.ipynb ## Measure how hard the synthetic hospital is (PROFILE=full: at the paper's size)
train: $(steps_of_train) ## Train every model of DRG-LLaMA's study
headline: $(steps_of_headline) ## Table 1 and Figures 1 and 2 alone
keep: $(INSTALLED) ## Keep RUN=llama, though the code that shapes it has changed since it was trained
	@$(PYTHON) -m drgstudy.plan keep $(PROFILE) $(RUN)

test: $(INSTALLED) ## Run all tests; every notebook runs on the smoke profile
	$(PYTHON) -m pytest
stress: $(INSTALLED) ## Run the long suites: kills, full disks, mutants, large inputs (hours)
	$(PYTHON) -m pytest -m stress
rehearse: $(INSTALLED) ## Walk an author's whole path on small data laid out as PhysioNet does: paper and published, a kill, reviews
	$(PYTHON) -m pytest -m stress tests/stress/test_rehearsal.py
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

clean: ## Remove what make made and git does not track, but for what people wrote into data/*/review*
	@for profile in $(notdir $(wildcard notebooks/params/*)); do \
	  find "data/$$profile" -mindepth 1 -maxdepth 1 ! -name 'review*' -exec rm -rf {} + 2>/dev/null; done; true
	@git clean -fdXq reports; rm -rf .make/*-*-*
distclean: clean ## As clean, and the fetched models and .venv too
	@rm -rf data/models .venv

.PHONY: help doctor env report early all data cohort hospital train headline keep test stress rehearse verify bench lint audit notebook clean distclean

.venv/bin/python:
	@for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && exec $$python -m venv .venv; \
	done; echo "error: Python 3.11 or newer, with venv, is needed; none of python3, python3.11 … python3.14 is that" >&2; exit 1

$(INSTALLED): requirements.lock pyproject.toml $(if $(filter .venv,$(ENV)),| .venv/bin/python)
	@echo "installing the pinned packages into $(ENV); a few minutes …"
	$(PYTHON) -m pip install -r requirements.lock
	$(PYTHON) -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# One parameter file is one step. Its executed notebook is written last, and stands for it. Two makes may work on one
# profile at once: what the other has made meanwhile is not made again. Before the first training, make prints which
# runs will be trained, why, and how long each took last time, and stops if one of them could not begin. As steps finish,
# the page is made again, at most once a minute; it says what is still to come.
LATELY = [ -f $(REPORT)/index.html ] && [ $$(( $$(date +%s) - $$(date -r $(REPORT)/index.html +%s) )) -lt 60 ]
PLANNED = .make/$(PROFILE)-$(notdir $(firstword $(MAKECMDGOALS)))-$(MAKE_BEGAN)
PLAN = @! mkdir $(PLANNED) 2>/dev/null || $(PYTHON) -m drgstudy.plan plan $(PROFILE) '$(MAKECMDGOALS)' '$(COMING)'
$(steps): $(DONE)/%.ipynb: | $(INSTALLED)
	$(if $(filter $@,$(trainings)),$(PLAN))
	@$(PYTHON) -m drgstudy.study $(PARAMS)/$*.yaml --unless-made $@ $^
	$(if $(filter $@,$(shown)),@$(LATELY) || $(PAGES))
# Make keeps a step's target after an error: a page that fails, or Ctrl-C, must not cost an hour of training, and every
# file is written whole or not at all.
.PRECIOUS: $(steps)

$(REPORT)/index.html: $(steps_of_report) | $(INSTALLED)
	@$(PAGES)
FORCE:
