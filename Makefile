# make demo         open napari on an H&E section with a checkpoint ready
# make test         the tests, two files at a time; make test ARGS="-k reader" for some of them
# make device       all that computes, on a device that is not the CPU: a tensor left behind fails
# make lint         style, types and the house plan's import contracts
# make docs         the documentation site in build/site; a warning is an error
# make coverage     the tests with the lines they reach, in the terminal and in htmlcov; ARGS as above
# make bench        all benchmarks in a short form, and their verdicts; ARGS="clicks gap" for some
# make screenshots  the pictures and the tour of the README, and those of the docs
# make panels       the panels in all states, by screen and theme, to be looked at
# make mutants      one-line changes of the scientific core, and which of them the tests notice
# make fuzz         damaged files for as long as you like: make fuzz CASES=50000 ARGS="-k h5ad"
# make clean        build products and caches; .venv stays
#
# Every target first makes .venv; PYTHON=python3.12 picks the Python it is made with.

SHELL := /bin/bash
.DELETE_ON_ERROR:

PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11,\
	$(shell $(p) -c 'import sys; sys.version_info >= (3, 11) and print("$(p)")' 2>/dev/null)) python3)
BIN := .venv/bin
SCREEN := tools/with-screen.sh

# Real sections, where they lie beside the checkout.
ifneq ($(wildcard ../shared/data),)
export NAPARI_DKAN_DATA ?= $(abspath ../shared/data)
endif

# With byte code: without it every start compiles thousands of modules.
unexport PYTHONDONTWRITEBYTECODE

# Both bindings are installed, for a test; everything else is done with one of them.
export QT_API ?= pyside6

.PHONY: demo test device lint docs coverage bench screenshots panels fuzz mutants clean libs

demo: libs .venv/.test
	@$(BIN)/napari-dkan demo

# Two workers with a torch of two threads each would wait for one another on two cores.
test: libs .venv/.test
	@OMP_NUM_THREADS=1 $(SCREEN) $(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

# In a process of its own: torch's devices are registered until it ends.
device: .venv/.test
	@NAPARI_DKAN_TEST_DEVICE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/device $(ARGS)

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# What Material prints about its successor is not about this site.
docs: .venv/.docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build
	@echo "The documentation is in build/site/index.html."

coverage: libs .venv/.dev
	@OMP_NUM_THREADS=1 $(SCREEN) $(BIN)/python -m pytest -n 2 --dist loadfile \
		--cov --cov-report=term:skip-covered --cov-report=html $(ARGS)

bench: libs .venv/.test
	@$(SCREEN) $(BIN)/python benchmarks/run.py $(ARGS)

fuzz: .venv/.test
	@FUZZ_CASES=$(or $(CASES),20000) $(BIN)/python -m pytest tests/fuzz/test_fuzz.py -n 2 $(ARGS)

mutants: .venv/.mutants
	@OMP_NUM_THREADS=1 $(BIN)/python tools/mutants.py $(ARGS)

screenshots: libs .venv/.test
	@$(SCREEN) $(BIN)/python tools/screenshots.py $(ARGS)

panels: libs .venv/.test
	@SCREEN_SIZE=3840x2160 $(SCREEN) $(BIN)/python tools/panels.py $(ARGS)

libs:
	@tools/system-libs.sh

clean:
	rm -rf build dist htmlcov mutants mutants.log .coverage .coverage.*
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# One stamp per extra, made anew when what is installed changes. docs contains dev and dev contains test,
# so one pip makes all three; two at a time would be in each other's way.
.NOTPARALLEL:
.venv/.test .venv/.dev .venv/.docs .venv/.mutants: .venv/.%: pyproject.toml constraints.txt tools/make-venv.sh
	@tools/make-venv.sh "$(PYTHON)" $*
	@touch $@ .venv/.test $(if $(filter docs,$*),.venv/.dev)
