# The two commands: `make run` serves the page, `make test` runs every test.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do command -v $$p && break; done)
BIN := .venv/bin
comma := ,
export HF_HUB_OFFLINE := 1
export GRADIO_ANALYTICS_ENABLED := False

.PHONY: run test fuzz check format build evaluate benchmark clean

run: .venv/run
	$(BIN)/python app.py

test: .venv/dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Every law again, with examples that no run had before.
fuzz: .venv/dev
	HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest -n 2 --dist loadfile $$(grep -l "@given" tests/*.py)

check: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_order.py

format: .venv/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

build evaluate benchmark: .venv/run
	$(BIN)/python scripts/$(subst build,build_index,$@).py

.venv/run: pyproject.toml constraints.txt
	$(call install,mcp)

.venv/dev: pyproject.toml constraints.txt
	$(call install,docs$(comma)mcp$(comma)postgres$(comma)milvus$(comma)train$(comma)dev)

define install
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "Python 3.11 or newer is needed, found: $$($(PYTHON) --version 2>&1). Try: make PYTHON=/path/to/python3.11"; exit 2; }
@test -x $(BIN)/python || $(PYTHON) -m venv .venv
@echo "Installing packages into .venv (a minute or two the first time) ..."
@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$(1)]"
@touch $@
endef

clean:
	rm -rf .venv build dist *.egg-info
