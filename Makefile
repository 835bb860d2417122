# Everything a contributor types. `make help` lists the targets; each one installs what it needs, once.
# The environment is .venv; a stamp in it is remade when pyproject.toml changes, so calling twice is free.

PYTHON ?= python3
VENV ?= .venv
TEST_JOBS ?= 2
DEMO_ARGS ?=
BENCH_ARGS ?= memory

BIN := $(VENV)/bin
PY := $(BIN)/python
PIP := $(PY) -m pip --disable-pip-version-check
DEMO_STAMP := $(VENV)/.installed-demo
DEV_STAMP := $(VENV)/.installed-dev
DOCS_STAMP := $(VENV)/.installed-docs
BENCH_STAMP := $(VENV)/.installed-bench

PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest
SHAPE_HOOK := --jaxtyping-packages=lookaround,beartype.beartype

.DEFAULT_GOAL := help
.PHONY: help install demo test check bench mutants sanitize wheel docs readme-figures clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# The native kernel is built ahead of its first use; without a compiler the library works too.
install: $(DEV_STAMP)  ## Make .venv with everything needed to develop
	@$(PY) -m lookaround.ops.backends.cpu_build || echo "make: going on without the native kernel"

# Threads that wait asleep: the tensors are tiny, and on a busy machine spinning threads cost most of the time.
demo: $(DEMO_STAMP)  ## Train three small networks to read handwritten digits and one to find them; table and pictures in runs/demo
	OMP_WAIT_POLICY=passive $(BIN)/lookaround demo $(DEMO_ARGS)

# The compile tests run apart, without the shape hook: its wrappers would be traced too. Both calls always
# run; the main suite comes last so that its summary closes the output.
test: $(DEV_STAMP)  ## Run the test-suite and the doctests
	@status=0; \
	if [ -d tests/compile ]; then $(PYTEST) tests/compile || status=$$?; fi; \
	$(PYTEST) -n $(TEST_JOBS) $(SHAPE_HOOK) --ignore=tests/compile --doctest-modules src/lookaround tests \
		|| status=$$?; \
	TRITON_INTERPRET=1 $(PYTEST) -n $(TEST_JOBS) -k triton tests/ops tests/compile || status=$$?; \
	exit $$status

check: $(DEV_STAMP)  ## Lint, format, types, import directions, exported names
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) -q tests/test_package.py

bench-gpu: $(BENCH_STAMP)  ## Test and measure on a CUDA device; fills benchmarks/results/gpu
	mkdir -p benchmarks/results/gpu
	$(PYTEST) -q -m gpu tests/ops
	for suite in layer network memory scaling peers; do \
		$(BIN)/lookaround bench $$suite --device cuda --dtype bfloat16 --batch-size 128 \
			$$(test $$suite = network && echo --compile) \
			--json benchmarks/results/gpu/$$suite.json --chart benchmarks/results/gpu/$$suite.png || exit 1; \
	done
	$(BIN)/lookaround bench detection --device cuda --dtype bfloat16 --batch-size 8 \
		--json benchmarks/results/gpu/detection.json --chart benchmarks/results/gpu/detection.png

bench: $(BENCH_STAMP)  ## Measure on this machine (BENCH_ARGS chooses the suite)
	$(BIN)/lookaround bench $(BENCH_ARGS)

mutants: $(DEV_STAMP)  ## Plant bugs one by one; each must fail the suite
	OMP_NUM_THREADS=1 $(PY) tests/mutants.py

sanitize: $(DEV_STAMP)  ## Run the native kernel under the address and undefined-behaviour sanitizers
	$(PY) tests/native/sanitize.py

# Without isolation: the kernel is compiled against the torch of .venv, and runs on every torch since 2.10.
wheel: $(DEV_STAMP)  ## Build a wheel with the compiled kernel into dist/
	rm -rf build
	LOOKAROUND_WHEEL_WITH_KERNEL=1 $(PIP) wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls -l dist/*.whl

docs: $(DOCS_STAMP)  ## Build the documentation site into site/, warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

readme-figures: $(DEMO_STAMP)  ## Put table and pictures of the last demo, and the table of networks, into the pages
	$(PY) docs/refresh.py demo runs/demo
	$(PY) docs/refresh.py models

clean:  ## Remove what was built or cached; keeps .venv and runs/
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage
	find src tests docs -name __pycache__ -type d -prune -exec rm -rf {} +

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "make: Python 3.11 or newer is needed; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." >&2; \
		echo "hint: name one, as in 'make $(or $(MAKECMDGOALS),install) PYTHON=python3.12'." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# A full development install holds all that the demo needs.
$(DEMO_STAMP): pyproject.toml | $(PY)
	@if [ $(DEV_STAMP) -nt pyproject.toml ]; then :; else $(PIP) install --quiet -e '.[train,detect,explore]'; fi
	@touch $@

$(DEV_STAMP): pyproject.toml | $(PY)
	$(PIP) install --quiet -e '.[dev]'
	@touch $@

$(DOCS_STAMP): pyproject.toml | $(PY)
	$(PIP) install --quiet -e '.[docs]'
	@touch $@

$(BENCH_STAMP): pyproject.toml | $(PY)
	$(PIP) install --quiet -e '.[bench]'
	@touch $@
