# The study as a graph of real files. `make` or `make help` explains the targets.
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

include lib/environment.mk
export MAKE_BEGAN := $(or $(MAKE_BEGAN),$(shell date +%s))
export MAKE_OUTLOOK := $(or $(MAKE_OUTLOOK),.make/$(PROFILE)-outlook-$(MAKE_BEGAN)/steps.json)
export MAKE_ASKED := $(or $(MAKE_ASKED),$(MAKECMDGOALS))
PAGES := $(PYTHON) -m drgstudy.report $(PROFILE)
GUARD := $(PYTHON) -m drgstudy.guard $(PROFILE)

# What each step reads, and so waits for, is found in the code by lib/drgstudy/study/graph.py. Under -n nothing is
# installed for that.
OF :=# OF=figures: the graph without trainings
GRAPH := .make/$(PROFILE)$(OF:%=-%).mk
DRY := $(findstring n,$(firstword -$(MAKEFLAGS)))
ifneq ($(filter-out help doctor env figures release test stress rehearse verify keep bench lint audit notebook clean distclean,$(or $(MAKECMDGOALS),help)),)
ifneq ($(if $(DRY),$(and $(USABLE),$(wildcard $(INSTALLED))),yes),)
$(GRAPH): FORCE $(if $(DRY),,| $(INSTALLED))
	@$(PYTHON) -m drgstudy.study.graph $(PROFILE) $@ $(OF)
include $(GRAPH)
endif
endif

help: ## Show this help
	@echo "make TARGET [PROFILE=$(PROFILE)]   profiles: $(notdir $(wildcard notebooks/params/*))"
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' Makefile

doctor: ## Say what is there and what is missing on this machine, and what to do
	@for python in python3 python3.13 python3.12 python3.11; do \
	  $$python -I -c "" 2>/dev/null && exec $$python -I lib/drgstudy/doctor.py "$(ENV)"; \
	done; echo "MISSING Python       none; install Python 3.11, 3.12 or 3.13" >&2; exit 1

env: $(INSTALLED) ## Build .venv, or complete the active environment; EXTRAS="bits cluster" adds bitsandbytes and Ray
	@$(if $(EXTRAS),$(BRING_PIP); $(PYTHON) -m pip install $(EXTRAS:%=-r requirements-%.lock))

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

# Two steps at once whose threads do not spin, unless -j says how many; and one page at the end, for a page that is made
# before the released runs lie here would drop those of their trainings.
.PHONY: cohorts pages
BOTH = OMP_WAIT_POLICY=passive $(MAKE) --no-print-directory OF=figures shown= $(if $(filter -j%,$(MAKEFLAGS)),,-j2)
figures: $(INSTALLED) ## Every table, figure and page without training: by the runs that lie here, or the released ones
	@$(BOTH) cohorts
	@$(PYTHON) -m drgstudy.release place $(PROFILE)
	@$(BOTH) pages
	@$(GUARD)
	@echo "the report: $(REPORT)/index.html"
cohorts: $(cohorts)
pages: $(foreach goal,$(goals),$(steps_of_$(goal)))
	@$(PAGES)
release: $(INSTALLED) ## Put the predictions of the runs that lie here into reports/PROFILE/released, for git to hold
	@$(PYTHON) -m drgstudy.release publish $(PROFILE)

# Whatever writes pages ends with the guard.
data cohort hospital train headline:
	@$(GUARD)
data: $(DONE)/01-hospital.ipynb ## Make (or check) the raw tables in MIMIC's shape
cohort: $(DONE)/03-cohort.ipynb ## Raw tables to labelled stays
hospital: $(DONE)/04-hardness.ipynb ## Measure how hard the synthetic hospital is (PROFILE=gpu: at the paper's size)
train: $(steps_of_train) ## Train every model of DRG-LLaMA's study
headline: $(steps_of_headline) ## Table 1 and Figures 1 and 2 alone
keep: $(INSTALLED) ## Keep RUN=llama, though the code that shapes it has changed since it was trained
	@$(PYTHON) -m drgstudy.plan keep $(PROFILE) $(RUN)

test: $(INSTALLED) ## Run all tests; every notebook runs on the smoke profile
	exec $(PYTHON) -m pytest --numprocesses 2 --no-loadscope-reorder
stress: $(INSTALLED) ## Run the long suites: kills, full disks, mutants, large inputs (hours)
	exec $(PYTHON) -m pytest -m stress
rehearse: $(INSTALLED) ## Walk an author's whole path on small data laid out as PhysioNet does: paper and published, a kill, reviews
	exec $(PYTHON) -m pytest -m stress tests/stress/test_rehearsal.py
verify: $(INSTALLED) ## Compare this report with the one that git holds, table by table
	@$(PYTHON) -m drgstudy.verify $(PROFILE)

bench: $(INSTALLED) ## Measure speed beside plain alternatives: reports/benchmarks.html (half an hour; keep the machine quiet)
	@$(MAKE) --no-print-directory data/gpu/executed/02-harmonization.ipynb PROFILE=gpu
	@$(MAKE) --no-print-directory cohort PROFILE=demo
	exec $(PYTHON) benchmarks/bench.py
lint: $(INSTALLED) ## Check code and notebooks with ruff
	$(PYTHON) -m ruff check lib tests benchmarks cluster notebooks
	$(PYTHON) -m ruff format --check lib tests benchmarks cluster
audit: $(INSTALLED) ## Ask pypi.org which pinned packages have known vulnerabilities
	@$(PYTHON) -m venv .make/audit && .make/audit/bin/pip install --quiet pip-audit
	@.make/audit/bin/pip-audit --strict --disable-pip --no-deps $(addprefix -r ,$(wildcard requirements*.lock))
notebook: $(INSTALLED) ## Open JupyterLab on the notebooks; in a container add ARGS="--ip=0.0.0.0 --no-browser"
	exec $(PYTHON) -m jupyterlab --notebook-dir=notebooks --LabApp.news_url=None \
	  --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate $(patsubst 0,--allow-root,$(filter 0,$(shell id -u))) $(ARGS)

clean: ## Remove what make made and git does not track, but for what people wrote into data/*/review*
	@for file in $(foreach profile,$(notdir $(wildcard notebooks/params/*)),data/$(profile)/* data/$(profile)/.[!.]*); do \
	  case $$file in */review*) ;; *) rm -rf "$$file";; esac; done
	@git clean -fdXq reports; rm -rf .make/*-*-*
distclean: clean ## As clean, and the fetched models and .venv too
	@rm -rf data/models .venv

.PHONY: help doctor env report early all figures release data cohort hospital train headline keep test stress rehearse verify bench lint audit notebook clean distclean

# One parameter file is one step. Its executed notebook is written last, and stands for it. Before the first step, make
# prints how many there are and how long they took. Two makes may work on one profile at once: what the other has made
# meanwhile is not made again. Before the first training, make prints which runs will be trained, why, and how long each
# took last time, and stops if one of them could not begin. As steps finish, the page is made again, at most once a
# minute; it says what is still to come. Beside numbers that earlier code wrote it may fail, and nothing need wait for
# that. By exec a signal to make reaches the step.
LATELY = $(PYTHON) -c 'import os, sys, time; sys.exit(time.time() - os.stat(sys.argv[1]).st_mtime > 60)' \
  $(REPORT)/index.html 2>/dev/null
PLANNED = .make/$(PROFILE)-$(notdir $(firstword $(MAKECMDGOALS)))-$(MAKE_BEGAN)
PLAN = @! mkdir $(PLANNED) 2>/dev/null || $(PYTHON) -m drgstudy.plan plan $(PROFILE) '$(MAKECMDGOALS)' '$(COMING)'
$(steps): $(DONE)/%.ipynb: | $(INSTALLED)
	@! mkdir $(dir $(MAKE_OUTLOOK)) 2>/dev/null || \
	  $(PYTHON) -m drgstudy.plan outlook $(PROFILE) '$(MAKE_ASKED)' $(MAKE_OUTLOOK) $(OF)
	$(if $(filter $@,$(trainings)),$(PLAN))
	@exec $(PYTHON) -m drgstudy.study $(PARAMS)/$*.yaml --unless-made $@ $^
	$(if $(filter $@,$(shown)),@$(LATELY) || $(PAGES) || echo 'the page is made again when all steps are done' >&2)
# Make keeps a step's target after an error: a page that fails, or Ctrl-C, must not cost an hour of training, and every
# file is written whole or not at all.
.PRECIOUS: $(steps)

$(REPORT)/index.html: $(steps_of_report) | $(INSTALLED)
	@$(PAGES)
FORCE:
