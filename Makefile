# What a person types. `make test` is the README's test command, and what CI calls first; `make gates` is the rest of CI.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: install serve test gates crash powercut clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

install: $(BIN)/python
	$(BIN)/pip install --quiet ./monitor ./client '.[test]'

serve: install
	$(BIN)/zetakv serve --data ./data

test: install
	cargo test --quiet --workspace
	$(BIN)/pytest

gates: install
	cargo fmt --check
	cargo clippy --quiet --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --quiet --workspace --no-deps
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Kills a service at seeded moments under load; SEED repeats a run. 1,000 crashes take under an hour.
CRASHES ?= 100
DURABILITY ?= epoch
crash: install
	PYTHONPATH=tests $(BIN)/python -P -m crash --crashes $(CRASHES) --durability $(DURABILITY) $(if $(SEED),--seed $(SEED))

# Cuts the power of a recorded service at seeded moments. IMAGE=N TRACE=FILE SEED=S repeats one image.
IMAGES ?= 50
powercut: install
	PYTHONPATH=tests $(BIN)/python -P -m crash.powercut --images $(IMAGES) $(if $(SEED),--seed $(SEED)) \
		$(if $(TRACE),--trace $(TRACE)) $(if $(IMAGE),--image $(IMAGE))

clean:
	rm -rf $(VENV) target
