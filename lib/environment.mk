# Which Python make uses, and how the pinned packages get into it.
# An active environment is used as it is, but for the .venv of this folder, which is made again if its Python is gone.
# Conda's base environment does not count as active.
ifneq ($(VIRTUAL_ENV),)
  ENV := $(if $(subst :$(CURDIR)/.venv:,,:$(VIRTUAL_ENV):),$(value VIRTUAL_ENV),.venv)
else ifneq ($(filter-out base,$(CONDA_DEFAULT_ENV)),)
  ENV := $(value CONDA_PREFIX)
else
  ENV := .venv
endif
$(foreach sign,: ; | * ? " \ ` $$,$(if $(findstring $(sign),$(ENV)),$(error the path of the active environment, $(ENV), \
  has a "$(sign)" in it; deactivate it, and make builds .venv, or move it)))
PYTHON := "$(ENV)/bin/python"
NONE :=
INSTALLED := $(subst $(NONE) ,\ ,$(ENV))/.drgstudy-installed
# Empty if that Python is gone, or is another than the one that the packages were installed for.
USABLE := $(shell $(PYTHON) -Ic 'from importlib.util import find_spec; print(find_spec("papermill") or "")' 2>/dev/null)
# For these Pythons and machines the pinned packages have wheels: tests/stress/test_lock.py asks the registry.
FITS := import platform, sys; sys.exit( \
  not (3, 11) <= sys.version_info < (3, 14) or (sys.platform, platform.machine()) == ("darwin", "x86_64"))
NEEDED := a Python 3.11, 3.12 or 3.13, with venv, that is not an Intel Mac's (for which there is no PyTorch), is needed
BRING_PIP = $(PYTHON) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m ensurepip >/dev/null 2>&1 || { \
  echo "error: $(ENV) has no pip, and its Python brings none; install pip into it" >&2; exit 1; }
LARGE := $(if $(wildcard /dev/nvidiactl /dev/dxg /System),, (no GPU is seen: docs/running.md says how to do without CUDA's libraries))
export PYTHONPATH := $(CURDIR)/lib
# What a site sets for all its Pythons would have packages installed elsewhere, or read from elsewhere.
unexport PYTHONHOME PYTHONEXECUTABLE PYTHONPLATLIBDIR PIP_TARGET PIP_PREFIX PIP_ROOT PIP_PYTHON PIP_DRY_RUN
export PYTHONNOUSERSITE := 1
export PIP_USER := 0
export PIP_REQUIRE_VIRTUALENV := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.venv/bin/python: $(if $(USABLE),,FORCE)
	@[ -w . ] || { echo "error: this folder is not writable, and .venv is to be made in it; copy it to where you may write" >&2; exit 1; }
	@! .venv/bin/python -c '' 2>/dev/null || exit 0; \
	for python in python3 python3.13 python3.12 python3.11; do \
	  $$python -c '$(FITS)' 2>/dev/null || continue; $$python -m venv --clear .venv && exit; rm -rf .venv; exit 1; \
	done; echo "error: $(NEEDED); none of python3, python3.11 … python3.13 is that (uv venv --python 3.13 makes one)" >&2; exit 1

$(INSTALLED): requirements.lock pyproject.toml $(if $(USABLE),,FORCE) $(if $(filter .venv,$(ENV)),| .venv/bin/python)
	@$(PYTHON) -c '$(FITS)' 2>/dev/null || { echo "error: $(NEEDED); $(ENV)/bin/python is not that, or does not start;" \
	  "remove or deactivate that environment, and make builds .venv" >&2; exit 1; }
	@[ -w "$(ENV)" ] || { echo "error: you may not write into $(ENV); deactivate it, and make builds .venv" >&2; exit 1; }
	@$(BRING_PIP)
	@echo "installing the pinned packages into $(ENV); a few minutes …$(LARGE)"
	$(PYTHON) -m pip install -r requirements.lock
	$(PYTHON) -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch "$@"
