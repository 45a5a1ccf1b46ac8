# Everything runs from .venv, which each target makes and fills when it is missing or older than pyproject.toml.
# No root, no compiler, no server: Python 3.11+ and make are enough. Another interpreter: make PYTHON=/path/to/python test
# Where there is a C compiler, the table is compiled, and again when its files have changed; elsewhere the pure one serves.

VENV    := .venv
PY      := $(VENV)/bin/python
PIP     := $(PY) -m pip --disable-pip-version-check --no-input install --quiet --prefer-binary
RUFF    := $(PY) -m ruff
PYTEST  := $(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile
PATHS   := setup.py src tests $(wildcard bench)
TABLE   := $(wildcard src/credenza/memory/*.c src/credenza/memory/*.h)
PYTHON  ?=
ARGS    ?=

# How often `make sanitize` uses a cache while it looks for leaks.
LEAK_OPERATIONS ?= 1000000

# Every test of the table and of the decorator. They run on the pure table, on the compiled one, and under the sanitizers;
# those in tests/memory drive both tables by themselves.
MEMORY_TESTS := tests/memory tests/test_bounds.py tests/test_decorator.py tests/test_eviction.py tests/test_freshness.py \
                tests/test_invalidation.py tests/test_keys.py tests/test_table_machine.py tests/test_values.py
# Too long under the sanitizers, and about blocks that malloc does not count; tests.support.leaks does the same for longer.
NOT_SANITIZED := tests/test_bounds.py::test_a_million_inserts_with_tags_leave_a_bounded_process

# The first candidate that is new enough and can make virtual environments; a named one is taken or refused.
CHECK   := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
FIND     = for python in $(or $(PYTHON),python3.13 python3.12 python3.11 python3 python); do \
             if "$$python" -c '$(CHECK)' >/dev/null 2>&1; then echo "$$python"; exit 0; fi; done; exit 1

# What compiles against the headers of one interpreter: $(call COMPILE,interpreter) flags and file.
COMPILE  = $(CC) -I"$$($(1) -c 'import sysconfig; print(sysconfig.get_path("include"))')"
COMPILES = { echo '\#include <Python.h>' | $(call COMPILE,$(1)) -x c -fsyntax-only -; } >/dev/null 2>&1
NEEDS_CC = $(call COMPILES,$(PY)) || { echo "make $@: no C compiler with Python's headers here; \
  install both (on Debian: apt install gcc python3-dev), or name one: make CC=/path/to/gcc $@" >&2; exit 1; }
# The interpreters whose headers the C files must compile with, without a warning; one that is not here is passed over.
INTERPRETERS ?= $(PY) python3.11 python3.12 python3.13 $(wildcard $(HOME)/.pyenv/versions/3.1[123].*/bin/python)

SANITIZED     := build/sanitize
SANITIZE      := -fsanitize=address,undefined -fno-sanitize-recover=undefined
RUNTIME        = $(shell $(CC) -print-file-name=$(1))
# CPython itself never frees all that it allocates, so leaks are for tests.support.leaks.
SANITIZED_RUN  = env CREDENZA_PURE= PYTHONPATH=$(SANITIZED)/lib PYTHONMALLOC=malloc \
                 LD_PRELOAD="$(call RUNTIME,libasan.so) $(call RUNTIME,libubsan.so)" \
                 ASAN_OPTIONS=detect_leaks=0:handle_segv=2 UBSAN_OPTIONS=print_stacktrace=1 $(PY)

.DEFAULT_GOAL := help
.PHONY: help demo test check warnings sanitize has-compiler bench chaos kills docs clean
.DELETE_ON_ERROR:

help: ## Show this list.
	@echo "make demo    seed the profile-page database, print the tour's table, serve the page (ARGS='--port 8001' ...)"
	@echo "make test    run the test suite, some files at a time (ARGS='-k name' ...)"
	@echo "make check   ruff, mypy, pyright, compiler warnings, import rule, docs build"
	@echo "make sanitize    the tests of the table under AddressSanitizer and UndefinedBehaviorSanitizer; looks for leaks"
	@echo "make bench   measure beside other libraries (ARGS=--quick ...)"
	@echo "make chaos   four processes, a real server, faults for two minutes, and a checker (ARGS='--seconds 30' ...)"
	@echo "make kills   write-behind, its process killed a thousand times, and a ledger (ARGS='--rounds 200' ...)"
	@echo "make docs    build the documentation into site/"
	@echo "make clean   remove everything that these targets made, .venv included"

demo: $(VENV)/.installed-demo
	@echo "==> credenza demo $(ARGS)"
	@$(PY) -m credenza demo $(ARGS)

test: $(VENV)/.installed-dev
	@table=$$($(PY) -c 'import credenza; print(credenza.implementation())') || exit 1; \
	if [ "$$table" = pure ]; then echo "==> no compiled table, or CREDENZA_PURE=1: everything runs on the pure one"; \
	elif [ -z "$(ARGS)" ]; then \
	  echo "==> CREDENZA_PURE=1 pytest: the table and the decorator in pure Python"; \
	  CREDENZA_PURE=1 $(PYTEST) $(filter-out tests/memory,$(MEMORY_TESTS)); \
	fi
	@echo "==> pytest $(ARGS)"
	@$(PYTEST) $(ARGS)

check: $(VENV)/.installed-dev $(VENV)/.installed-docs
	@echo "==> ruff check, ruff format --check"
	@$(RUFF) check $(PATHS)
	@$(RUFF) format --check $(PATHS)
	@echo "==> mypy --strict"
	@$(PY) -m mypy
	@echo "==> pyright (strict)"
	@$(PY) -m basedpyright --pythonpath $(PY)
	@if $(call COMPILES,$(PY)); then $(MAKE) --no-print-directory warnings; \
	else echo "==> no C compiler with Python's headers here: the C files are not compiled"; fi
	@echo "==> import rule, public names"
	@$(PY) -m pytest -q tests/test_imports.py tests/test_public_names.py
	@echo "==> mkdocs build --strict"
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict
	@echo "==> all checks passed"

warnings: $(VENV)/.created
	@$(NEEDS_CC)
	@for python in $(INTERPRETERS); do \
	  if ! $(call COMPILES,"$$python"); then echo "==> no $$python with headers here"; continue; fi; \
	  echo "==> $(CC) -Wall -Wextra -Werror, $$python: $$("$$python" --version)"; \
	  for file in $(filter %.c,$(TABLE)); do \
	    $(call COMPILE,"$$python") -O3 -DNDEBUG -Wall -Wextra -Werror -c "$$file" -o /dev/null || exit 1; \
	  done; \
	done

sanitize: $(VENV)/.installed-dev
	@$(NEEDS_CC)
	@[ -e "$(call RUNTIME,libasan.so)" ] && [ -e "$(call RUNTIME,libubsan.so)" ] || { \
	  echo "make $@: $(CC) has no libasan.so and libubsan.so; those of GCC are needed: make CC=gcc $@" >&2; exit 1; }
	@echo "==> building the table with $(SANITIZE)"
	@rm -rf $(SANITIZED)
	@CFLAGS="-O1 -g -UNDEBUG -fno-omit-frame-pointer $(SANITIZE)" LDFLAGS="$(SANITIZE)" $(PY) setup.py --quiet \
	  build --build-base $(SANITIZED)/objects --build-lib $(SANITIZED)/lib
	@$(SANITIZED_RUN) -c 'from credenza.memory import _table; assert "$(SANITIZED)" in _table.__file__, _table.__file__' || { \
	  echo "make $@: the table was not built, or it does not load with the sanitizers" >&2; exit 1; }
	@echo "==> pytest under the sanitizers $(ARGS)"
	@$(SANITIZED_RUN) -m pytest -n auto --maxprocesses 4 -p no:cacheprovider --capture sys --timeout 120 \
	  --deselect $(NOT_SANITIZED) $(or $(ARGS),$(MEMORY_TESTS)) # captured output of a process that dies would be lost
	@echo "==> python -m tests.support.leaks"
	@CREDENZA_PURE= $(PY) -m tests.support.leaks --operations $(LEAK_OPERATIONS)

has-compiler: $(VENV)/.created
	@$(call COMPILES,$(PY))

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
	@find src -name '*.so' -type f -delete
	@find src tests bench docs -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# Only after a step is complete is its stamp written, so an interrupted one is done again.
$(VENV)/.created:
	@python=$$($(FIND)) || { \
	  echo "No Python 3.11 or newer with the venv module was found. Install one (on Debian: apt install python3-venv)," >&2; \
	  echo "or name it: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }; \
	echo "==> making $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv $(VENV)
	@touch $@

$(VENV)/.installed-%: pyproject.toml setup.py $(TABLE) $(VENV)/.created
	@echo "==> installing credenza[$*] into $(VENV) (the first time takes a minute)"
	@$(PIP) --editable '.[$*]'
	@touch $@
