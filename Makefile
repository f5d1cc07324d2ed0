PYTHON ?= python3

.PHONY: setup demo test lint e2e clean

setup:
	@$(PYTHON) -m infra.setup_env

demo: setup
	.venv/bin/rlhf run recipes/asr/whisper_tiny.yaml

test: setup
	.venv/bin/pytest

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

e2e: setup
	.venv/bin/pytest -m e2e

# Runs stay, and the data and warm starts under .cache.
clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
