# trio-pooler. `make help` lists what can be made; every target does its own set-up first.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
SHELL := /bin/sh

# The first Python that is new enough; `make PYTHON=/path/to/python3.13` overrides.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
# Whatever a compiled extension depends on, but not what cffi generates in the same places.
NATIVE := $(filter-out $(wildcard trio_backends/_engine* pooler/wire/_framing*), \
	$(wildcard trio_backends/engine/*.[ch] trio_backends/engine/*.txt trio_backends/engine/build*.py \
	pooler/wire/*.[ch] pooler/wire/*.txt pooler/wire/build*.py))
OUR_C := $(filter %.c,$(NATIVE))
# Files of another system's kernel do not compile here.
ifeq ($(shell uname),Linux)
OUR_C := $(filter-out %kqueue.c,$(OUR_C))
else
OUR_C := $(filter-out %io_uring.c %epoll.c,$(OUR_C))
endif

CC ?= cc
export CC
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
export PIP_NO_INPUT := 1

.PHONY: help
help: ## list the targets
	@echo 'make TARGET, where TARGET is one of'
	@grep -E '^[a-z-]+:.*##' Makefile | sort | \
		awk -F ':.*## ' '{ printf "  %-15s %s\n", $$1, $$2 }'

.PHONY: run
run: $(READY) ## a PostgreSQL and the pooler before it, to try; CONFIG=file.toml: the pooler with your own
	@$(if $(CONFIG),$(VENV)/bin/trio-pooler run $(CONFIG),$(VENV)/bin/trio-pooler demo $(ARGS))

.PHONY: test
test: $(READY) ## the whole suite; ARGS='-k name' passes arguments to pytest
	@$(PY) -m pytest -q $(ARGS)

.PHONY: soak
soak: $(READY) ## a million random messages beside a direct connection; ARGS='--seed 7 --shrink'
	@$(PY) -m tests.soak $(ARGS)

.PHONY: test-trio
test-trio: $(READY) ## Trio's own test suite on each backend, against stock Trio; ARGS: which backends
	@$(PY) -m tests.trio_suite.run $(ARGS)

# The newest Trio is in .venv; the oldest that pyproject.toml allows goes before it on the path.
OLDEST_TRIO := $(shell sed -n 's/.*"trio>=\([0-9.]*\),.*/\1/p' pyproject.toml)
OLDEST := build/trio-$(OLDEST_TRIO)
.PHONY: test-trio-range
test-trio-range: $(READY) $(OLDEST) ## tests of the backends with the oldest Trio that is supported
	@PYTHONPATH="$$PWD/$(OLDEST)" $(PY) -m pytest -q tests/trio_backends $(ARGS)

$(OLDEST): $(READY)
	@rm -rf $@ $@.new && $(PY) -m pip install -q --target $@.new 'trio==$(OLDEST_TRIO)' && mv $@.new $@

# Not with the rest: it is for users who still have trio-typing, and builds a .venv of its own.
LEGACY := build/typing-legacy
.PHONY: test-typing
test-typing: $(READY) ## our types beside trio-typing, with a mypy that its plugin works with
	@[ -x $(LEGACY)/bin/mypy ] || { $(PY) -m venv --clear $(LEGACY) && \
		$(LEGACY)/bin/python -m pip install -q '.[typing-legacy]'; }
	@cd $(LEGACY) && bin/mypy --config-file ../../tests/typing_legacy/mypy.ini \
		../../tests/typing_legacy/program.py

.PHONY: setup
setup: $(READY) ## the virtual environment .venv with everything in it, the C engine built
	@echo 'Ready: $(VENV)/bin/trio-pooler'

$(PY):
	@if [ -z '$(PYTHON)' ]; then \
		echo 'trio-pooler needs Python 3.11 or newer, and finds none: make PYTHON=/path/to/it' >&2; \
		exit 1; fi
	@.ci/toolchain $(PYTHON)
	@echo 'Making $(VENV) with $(PYTHON)'
	@$(PYTHON) -m venv --clear $(VENV)

# Dependencies change with the two package files; any other prerequisite is C, and built alone.
$(READY): $(PY) pyproject.toml setup.py $(NATIVE)
	@.ci/toolchain $(PY)
	@rm -f trio_backends/_engine*.so pooler/wire/_framing*.so
	@$(if $(filter $(PY) pyproject.toml setup.py,$?), \
		echo 'Installing into $(VENV): takes a minute or two' && \
		TRIO_POOLER_WERROR=1 $(PY) -m pip install -q -e '.[dev]', \
		echo 'Building the C engine' && \
		TRIO_POOLER_WERROR=1 $(PY) setup.py -q build_ext --inplace --force)
	@touch $@

.PHONY: lint
lint: $(READY) ## ruff, mypy, import-linter, and our C with warnings as errors
	@failed=; \
	$(VENV)/bin/ruff check -q . || failed="$$failed ruff-check"; \
	$(VENV)/bin/ruff format -q --diff . || failed="$$failed ruff-format"; \
	$(VENV)/bin/mypy || failed="$$failed mypy"; \
	said=$$($(VENV)/bin/lint-imports) || { echo "$$said"; failed="$$failed lint-imports"; }; \
	for file in $(OUR_C); do \
		$(CC) -std=gnu11 -O2 -Wall -Wextra -Werror -Itrio_backends/engine -Ipooler/wire \
			-c -o /dev/null $$file || failed="$$failed $$file"; done; \
	if [ -n "$$failed" ]; then echo "lint: failed:$$failed" >&2; exit 1; fi; \
	echo 'lint: all is well'

.PHONY: bench
bench: $(READY) ## measure beside PgBouncer; ARGS passes arguments to bench.run
	@$(PY) -m bench.run $(ARGS)

.PHONY: bench-backends
bench-backends: $(READY) ## measure trio_backends beside stock Trio, asyncio and uvloop; ARGS likewise
	@$(PY) -m bench.backends.run $(ARGS)

.PHONY: docs
docs: $(READY) ## write docs/settings.md from the table, and measure docs/transparency.md
	@$(PY) -m pooler.config.reference > docs/settings.md
	@$(PY) -m tests.transparency.page > docs/transparency.md.new && \
		mv docs/transparency.md.new docs/transparency.md

# The suite on a copy of the tree, so that the ordinary extensions stay what they are. CPython itself
# gives memory back only partly when it ends, so leaks are not looked for.
SANITIZED := build/sanitize
.PHONY: sanitize
sanitize: $(READY) ## the suite with the C under AddressSanitizer and UndefinedBehaviorSanitizer
	@rm -rf $(SANITIZED) && mkdir -p $(SANITIZED)
	@cp -R trio_backends pooler tests bench docs examples *.toml *.py *.md LICENSE $(SANITIZED)
	@find $(SANITIZED) \( -name '*.so' -o -name '_engine*.c' -o -name '_framing*.c' \) -delete
	@echo 'Building the C engine with the sanitizers in $(SANITIZED)'
	@cd $(SANITIZED) && TRIO_POOLER_SANITIZE=1 $(abspath $(PY)) setup.py -q build_ext --inplace
	@cd $(SANITIZED) && PYTHONPATH="$$PWD" PYTHONMALLOC=malloc \
		LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" \
		ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
		$(abspath $(PY)) -m pytest -q $(ARGS)

# Another copy, with the simulator of kevent() in tests/support/kqueue under the kqueue driver.
KQUEUE_SIM := build/kqueue-sim
.PHONY: test-kqueue
test-kqueue: $(READY) ## the tests of the backends and the pooler on kqueue, simulated; ARGS
	@rm -rf $(KQUEUE_SIM) && mkdir -p $(KQUEUE_SIM)
	@cp -R trio_backends pooler tests bench docs examples *.toml *.py *.md LICENSE $(KQUEUE_SIM)
	@find $(KQUEUE_SIM) \( -name '*.so' -o -name '_engine*.c' -o -name '_framing*.c' \) -delete
	@echo 'Building the C engine with a simulated kqueue in $(KQUEUE_SIM)'
	@cd $(KQUEUE_SIM) && TRIO_POOLER_WERROR=1 TRIO_BACKENDS_KQUEUE_SIM=1 \
		$(abspath $(PY)) setup.py -q build_ext --inplace
	@cd $(KQUEUE_SIM) && PYTHONPATH="$$PWD" \
		$(abspath $(PY)) -m pytest -q tests/trio_backends tests/integration $(ARGS)

# The compiler is 400 MB, so it has a venv of its own; setuptools and cffi say what is to be compiled.
ABI := build/abi
.PHONY: abi
abi: $(PY) ## our C compiled and linked for FreeBSD and macOS, by the compiler of ziglang
	@[ -e $(ABI)/.ready ] || { $(PY) -m venv --clear $(ABI) && \
		$(ABI)/bin/python -m pip install -q 'ziglang>=0.15.2,<0.18' 'setuptools>=77' 'cffi>=1.16' && \
		touch $(ABI)/.ready; }
	@$(ABI)/bin/python -m tests.support.kqueue.check_abi

.PHONY: clean
clean: ## remove what was built, .venv too
	@rm -rf $(VENV) build dist *.egg-info
	@rm -f trio_backends/_engine*.[co] trio_backends/*.so pooler/wire/_framing*.[co] pooler/wire/*.so
