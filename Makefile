# `make repro` regenerates the paper with a small model, `make test` runs the tests. Everything else is DVC.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do $$python -c \
	'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$python && break; done)
JOBS ?= auto
# Parts of packages that no stage imports: their bytecode would take a fifth of the time to compile.
UNUSED := /tests?/|/(asyncssh|prompt_toolkit|pygments|wcwidth|fontTools/ttLib|fontTools/varLib|scipy/integrate)/
UNUSED := $(UNUSED)|/(scipy/interpolate|scipy/signal|scipy/stats|sympy/combinatorics|sympy/physics|sympy/stats)/
UNUSED := $(UNUSED)|/torch/(_inductor/codegen|_inductor/fx_passes|_inductor/kernel|testing/_internal)/
UNUSED := $(UNUSED)|/transformers/models/(?!__init__|auto|bloom|encoder_decoder|gemma|paligemma|siglip)
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DVC_NO_ANALYTICS := 1

.PHONY: repro experiment test check bench rehearsal verify clean gc

repro: .venv/installed            ## Table II, figures and the page, from params.yaml; JOBS=1: one stage at a time
	python -m stages.check
	python -m pipeline.jobs --jobs '$(JOBS)'

# `dvc exp run` finds all stages up to date, and saves the experiment.
experiment: .venv/installed       ## `dvc exp run -S` with stages side by side: make experiment SET='lora.rank=4 seeds=[1,2]'
	$(if $(SET),python -m pipeline.overrides "$$SET")
	python -m stages.check
	python -m pipeline.jobs --jobs '$(JOBS)'
	dvc exp run

test: .venv/dev .venv/tracking .venv/apart .venv/serve ## each package, dvc.yaml against the code, the pipeline end to end
	python -m pytest tests -q -n auto --dist loadfile --no-loadscope-reorder --durations=25

check: .venv/dev .venv/audit      ## format, lint, types, import directions, known vulnerabilities
	ruff format --check .
	ruff check .
	mypy captioning pipeline stages
	lint-imports
	python -m tools.audit

bench: .venv/installed            ## all benchmarks, each against a peer
	python -m benchmarks

rehearsal: .venv/installed        ## the paper profile's stages at PaliGemma-3B's true shape, random weights; 15 GB of disk
	python -m benchmarks.rehearsal

verify: .venv/installed           ## compare the results with the committed ones
	python -m tools.verify

.venv/installed: requirements.txt
	$(or $(PYTHON),$(error Python 3.11, 3.12 or 3.13 is needed; install one, or say make PYTHON=...)) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.txt
	.venv/bin/python -W ignore -m compileall -qq -j 0 -x '$(UNUSED)' .venv/lib || true   # on all cores; pip uses one
	touch $@

.venv/dev: .venv/installed requirements-dev.txt
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

.venv/tracking: .venv/installed requirements-tracking.txt
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-tracking.txt
	touch $@

.venv/apart: .venv/installed requirements-apart.txt
	rm -rf .venv/packages-apart   # pip would leave an older release there
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --target .venv/packages-apart -r requirements-apart.txt
	touch $@

.venv/serve: .venv/installed requirements-serve.txt   # no dependencies: they would replace the pinned Pillow
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-serve.txt
	touch $@

.venv/audit: .venv/installed requirements-audit.txt   # if the package index does not answer, `check` says so and continues
	-.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-audit.txt && touch $@

clean:                            ## remove saved states, downloads, logs and caches of tools; no results
	rm -rf .cache/resume .cache/scenes .cache/downloads .cache/logs .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache

gc: .venv/installed               ## list what no commit or experiment needs in DVC's cache; YES=1 removes it
	dvc gc --workspace --all-commits --all-experiments $(if $(filter 1,$(YES)),--force,--dry)
