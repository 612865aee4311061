.PHONY: check test quick bench docs spelling tables

check: ## lint, format, types
	ruff check . && ruff format --check . && pyright

test: ## the whole test suite
	pytest -n auto

quick: ## all tests but those that take seconds each
	pytest -m "not slow" -n 2

.PHONY: coverage mutate lock
coverage: ## branch coverage of what decides, with a floor
	coverage erase
	coverage run -m pytest -n auto -m "not slow and not docs" tests/core tests/policy tests/exact tests/constraints \
	    tests/scoring tests/sampling tests/test_front_door.py
	coverage combine -q
	coverage report --fail-under=93

mutate: ## how many small changes of core, policy and sampling the tests notice, by a sample; resumed if it was stopped
	nice python tests/helpers/mutants.py --sample 300 --seed 0 --out mutants/sample.jsonl

lock: ## uv.lock anew, with the versions of constraints.txt
	uv lock $$(grep == constraints.txt | sed 's/^/--upgrade-package /')

bench: ## cost of a policy step, and of the reference model's forward pass
	python benchmarks/step.py

docs: ## the site, into build/docs; a warning is an error
	python -m sphinx -E -W --keep-going -q -j auto -b html docs build/docs

spelling: ## common misspellings, anywhere
	codespell

tables: ## tables and pictures that the documentation shows
	python benchmarks/exact_study.py --write
	python benchmarks/error_budget.py
	python benchmarks/nae_sat.py --write
	python benchmarks/pictures.py --write
	python benchmarks/canvas.py --write
