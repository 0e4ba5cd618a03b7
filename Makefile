# Needs Python 3.11 or newer, make and a package registry; everything else is installed into the environment below.
#
#   make figures                     draw the figures with python3, in .venv
#   make test PYTHON=python3.13      the same checks with another Python, in .venv-3.13
#   make figures PRESET=paper        finer and slower
#   make figures ACCELERATOR=cuda13 PRESET=accelerator     on GPUs (cuda12, cuda13) or TPUs (tpu), in .venv-cuda13

PYTHON ?= python3
PRESET ?= quick
WORKERS ?= auto
ACCELERATOR ?=
ACCELERATORS := cuda12 cuda13 tpu
$(if $(filter-out $(ACCELERATORS),$(ACCELERATOR)),$(error ACCELERATOR is one of $(ACCELERATORS), and "$(ACCELERATOR)" came))
# Where none is found figures stop, lest a CPU computes for a day.
WANTED := $(ACCELERATOR)$(filter accelerator,$(PRESET))
# Scripts that overlap; one process takes an accelerator's whole memory.
AT_ONCE ?= $(if $(WANTED),1,2)
# The longest begin first, lest one is left alone at the end.
SCRIPTS ?= $(addprefix scripts/,laws.py inspect_models.py atlas.py modern_training.py early_layers_training.py \
	trainability.py coordinate_check.py trainability_boundary.py transformer_depth.py remedies.py modern_memory.py \
	low_precision.py two_inputs.py phase_diagram.py dynamical_isometry.py singular_values.py critical_lines.py \
	batchnorm_explosion.py finite_width.py lyapunov_spectrum.py depth_profile.py early_layers.py sequence_memory.py \
	recurrent_phase_diagram.py residual_phase_diagram.py derivatives.py)
# These time what they measure, and run with nothing beside them.
TIMED := $(if $(filter file,$(origin SCRIPTS)),scripts/scaling.py)

# Empty when $(PYTHON) is missing or too old.
VERSION := $(shell $(PYTHON) -c 'import sys; v = sys.version_info[:2]; v >= (3, 11) and sys.stdout.write("%d.%d" % v)' 2>/dev/null)
VENV ?= .venv$(if $(filter-out python3,$(PYTHON)),-$(VERSION))$(addprefix -,$(ACCELERATOR))
LOCKS := requirements.lock $(patsubst %,requirements-%.lock,$(ACCELERATOR))
RUN := $(VENV)/bin/python
# Bytecode is made of what is used, and kept: of all there is pip would take 20 seconds.
PIP := $(RUN) -m pip install --quiet --no-input --disable-pip-version-check --progress-bar off --no-deps --no-compile
unexport PYTHONDONTWRITEBYTECODE
STAMP := $(VENV)/.installed-$(VERSION)

.DEFAULT_GOAL := help
.PHONY: help install figures lint style types pytest test test-all docs lock wheel smoke clean

help:
	@echo "make figures   draw every figure into figures/ (PRESET=quick, paper or accelerator)"
	@echo "make test      lint, check types, run the tests (WORKERS=auto), of the widest a sample of their cases"
	@echo "make test-all  the same with every case of every test"
	@echo "make lint      only lint and check types"
	@echo "make docs      run every snippet of the documentation and build it into build/docs"
	@echo "make install   only make the environment"
	@echo "make lock      choose the newest versions anew and write the locks"
	@echo "make wheel     build the source archive and the wheel into dist/"
	@echo "make smoke     install that wheel into an environment of its own, and measure with it"
	@echo "make clean     remove what was built and cached; the environment stays"
	@echo "On GPUs or TPUs: make figures ACCELERATOR=cuda13 PRESET=accelerator (or cuda12, tpu)"
	@echo "With another Python: make test PYTHON=python3.13"

install: $(STAMP)

# An environment of another Python, or a broken one, is made anew; otherwise only what changed is installed.
$(STAMP): $(LOCKS) pyproject.toml
	$(if $(VERSION),,$(error gradsim needs Python 3.11 or newer, and "$(PYTHON)" is older or missing; name another one with PYTHON=python3.13))
	@echo "installing pinned versions into $(VENV) (Python $(VERSION))"
	@$(RUN) -c 'import pip, sys; sys.exit("%d.%d" % sys.version_info[:2] != "$(VERSION)")' 2>/dev/null \
		|| $(PYTHON) -m venv --clear $(VENV)
	@echo '*' > $(VENV)/.gitignore
	@$(PIP) $(addprefix --requirement ,$(LOCKS))
	@$(PIP) --no-build-isolation --editable .
	@touch $@

figures: $(STAMP)
	@mkdir -p figures
	$(if $(WANTED),@$(RUN) -m gradsim.cli.accelerator $(ACCELERATOR))
	@$(RUN) -m gradsim.cli.figures $(SCRIPTS) --at-once $(AT_ONCE) -- --preset $(PRESET) --out figures --reuse
	$(if $(TIMED),@$(RUN) -m gradsim.cli.figures $(TIMED) -- --preset $(PRESET) --out figures --reuse)

style: $(STAMP)
	$(RUN) -m ruff check gradsim scripts tests docs
	$(RUN) -m ruff format --check gradsim scripts tests docs

types: $(STAMP)
	$(RUN) -m mypy

lint: style types

test: SAMPLE := --sample
# Types are checked beside the tests, for that takes one core.
test test-all: style
	$(RUN) -m pip check --disable-pip-version-check
	@$(MAKE) --no-print-directory --jobs 2 types pytest SAMPLE=$(SAMPLE)

pytest: $(STAMP)
	$(RUN) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(SAMPLE) --jaxtyping-packages=gradsim,beartype.beartype

# What only the documentation needs; the tests do without.
$(STAMP)-docs: $(STAMP) requirements-docs.lock
	@$(PIP) --requirement requirements-docs.lock
	@touch $@

docs: $(STAMP)-docs
	$(RUN) -m sphinx --builder html --jobs 2 --fail-on-warning --keep-going --nitpicky docs build/docs

RESOLVE = $(RUN) -m uv pip compile pyproject.toml --universal --python-version 3.11 \
	--extra test --extra dev --extra digits --quiet --no-annotate --no-header

# An accelerator's lock has what comes beside the others.
lock: $(STAMP)
	$(RESOLVE) --upgrade --output-file requirements.lock
	for extra in $(ACCELERATORS); do \
		$(RESOLVE) --extra $$extra --constraint requirements.lock > $(VENV)/all.lock || exit 1; \
		grep -vxFf requirements.lock $(VENV)/all.lock > requirements-$$extra.lock; \
	done
	$(RUN) -m uv pip compile --group docs --constraint requirements.lock --universal --python-version 3.11 \
		--upgrade --quiet --no-annotate --no-header --output-file requirements-docs.lock

wheel: $(STAMP)
	@rm -rf dist
	$(RUN) -m build --no-isolation

# As users have it: an environment with nothing but the wheel and what it declares, and no checkout in sight.
smoke: wheel
	$(PYTHON) -m venv --clear build/smoke
	build/smoke/bin/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock dist/*.whl
	build/smoke/bin/python -m pip check --disable-pip-version-check
	cd build && smoke/bin/python -I -c \
		"import gradsim as gs; print(gs.__file__); print(gs.sweep(gs.feedforward(8), depth=4, seeds=1).log_gain.values)"

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find gradsim scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +
