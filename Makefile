.PHONY: check test bench docs

check: ## lint, format, types
	ruff check . && ruff format --check . && pyright

test: ## the whole test suite
	pytest -n auto

bench: ## cost of a policy step, and of the reference model's forward pass
	python benchmarks/step.py

docs: ## tables and pictures that the documentation shows
	python benchmarks/exact_study.py
	python benchmarks/error_budget.py
	python benchmarks/nae_sat.py
