# Everything runs from .venv, which each target makes and fills when it is missing or older than pyproject.toml.
# No root, no compiler, no server: Python 3.11+ and make are enough. Another interpreter: make PYTHON=/path/to/python test

VENV    := .venv
PY      := $(VENV)/bin/python
PIP     := $(PY) -m pip --disable-pip-version-check --no-input install --quiet --prefer-binary
RUFF    := $(PY) -m ruff
PATHS   := src tests $(wildcard bench)
PYTHON  ?=
ARGS    ?=

# The first candidate that is new enough and can make virtual environments; a named one is taken or refused.
CHECK   := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
FIND     = for python in $(or $(PYTHON),python3.13 python3.12 python3.11 python3 python); do \
             if "$$python" -c '$(CHECK)' >/dev/null 2>&1; then echo "$$python"; exit 0; fi; done; exit 1

.DEFAULT_GOAL := help
.PHONY: help demo test check bench chaos kills docs clean
.DELETE_ON_ERROR:

help: ## Show this list.
	@echo "make demo    seed the profile-page database, print the tour's table, serve the page (ARGS='--port 8001' ...)"
	@echo "make test    run the test suite, some files at a time (ARGS='-k name' ...)"
	@echo "make check   ruff, mypy, pyright, import rule, docs build"
	@echo "make bench   measure beside other libraries (ARGS=--quick ...)"
	@echo "make chaos   four processes, a real server, faults for two minutes, and a checker (ARGS='--seconds 30' ...)"
	@echo "make kills   write-behind, its process killed a thousand times, and a ledger (ARGS='--rounds 200' ...)"
	@echo "make docs    build the documentation into site/"
	@echo "make clean   remove everything that these targets made, .venv included"

demo: $(VENV)/.installed-demo
	@echo "==> credenza demo $(ARGS)"
	@$(PY) -m credenza demo $(ARGS)

test: $(VENV)/.installed-dev
	@echo "==> pytest $(ARGS)"
	@$(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)

check: $(VENV)/.installed-dev $(VENV)/.installed-docs
	@echo "==> ruff check, ruff format --check"
	@$(RUFF) check $(PATHS)
	@$(RUFF) format --check $(PATHS)
	@echo "==> mypy --strict"
	@$(PY) -m mypy
	@echo "==> pyright (strict)"
	@$(PY) -m basedpyright --pythonpath $(PY)
	@echo "==> import rule, public names"
	@$(PY) -m pytest -q tests/test_imports.py tests/test_public_names.py
	@echo "==> mkdocs build --strict"
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict
	@echo "==> all checks passed"

bench: $(VENV)/.installed-bench
	@echo "==> python -m bench $(ARGS)"
	@$(PY) -m bench $(ARGS)

chaos: $(VENV)/.installed-dev
	@echo "==> python -m bench.chaos $(ARGS)"
	@$(PY) -m bench.chaos $(ARGS)

kills: $(VENV)/.installed-dev
	@echo "==> python -m bench.kills $(ARGS)"
	@$(PY) -m bench.kills $(ARGS)

docs: $(VENV)/.installed-docs
	@echo "==> mkdocs build --strict"
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict
	@echo "==> open site/index.html"

clean:
	@echo "==> removing .venv, site, build, caches"
	@rm -rf $(VENV) site build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
	@find src tests bench docs -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# Only after a step is complete is its stamp written, so an interrupted one is done again.
$(VENV)/.created:
	@python=$$($(FIND)) || { \
	  echo "No Python 3.11 or newer with the venv module was found. Install one (on Debian: apt install python3-venv)," >&2; \
	  echo "or name it: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }; \
	echo "==> making $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv $(VENV)
	@touch $@

$(VENV)/.installed-%: pyproject.toml $(VENV)/.created
	@echo "==> installing credenza[$*] into $(VENV) (the first time takes a minute)"
	@$(PIP) --editable '.[$*]'
	@touch $@
