# Two commands: `make release` and `make test`. Everything lives in .venv; the second run skips what stands.
PYTHON ?= python3
# An index with CPU wheels of PyTorch saves gigabytes where no GPU is used: make release TORCH_INDEX=<url>
TORCH_INDEX ?=
# A folder with a Hugging Face model, or a hub id as owner/name@commit; it is written to params.yaml.
MODEL ?=

BIN := .venv/bin
TORCH := torch==2.13.0
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
QUICK := not services and not browser and not slow and not gpu

.PHONY: release test test-all lint clean

# Exit codes 1 (rejected) and 3 (inconclusive) are answers of a pipeline that ran to its end.
release: .venv/installed
	@$(BIN)/python -m fairgate release $(if $(MODEL),--model "$(MODEL)") || { code=$$?; [ $$code -eq 1 ] || [ $$code -eq 3 ] || exit $$code; }

test: .venv/installed-dev
	$(BIN)/python -m pytest -m "$(QUICK)"

test-all: lint
	$(BIN)/python -m pytest -m "not gpu" --no-skip services,browser

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "fairgate needs Python 3.11, 3.12 or 3.13; name one with PYTHON=")'
	$(PYTHON) -m venv .venv
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	$(PIP) $(TORCH) --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(PIP) $(TORCH) --editable '.[dev,s3,distributed]'
	touch $@

# The downloaded wheels in .fairgate and the registry (mlflow.db, mlartifacts) stay; remove them by hand.
clean:
	rm -rf .venv data .fairgate/quantize .fairgate/evaluate .fairgate/tracebacks .dvc/cache .dvc/tmp .prefect .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
