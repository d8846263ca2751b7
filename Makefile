# What a person types. `make test` is the README's test command, and what CI calls first; `make gates` is the rest of CI.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: install serve test gates crash histories lies powercut model assure size loom fuzz mutants search search-sessions clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

install: $(BIN)/python
	$(BIN)/pip install --quiet ./monitor ./client '.[test,bench]'

serve: install
	$(BIN)/zetakv serve --data ./data

test: install
	cargo test --quiet --workspace
	cargo build --quiet --release -p zetakv-loadgen
	cargo bench --quiet -p zetakv-prover --bench verifier --no-run
	$(BIN)/pytest

gates: install
	cargo fmt --check
	cargo fmt --check --manifest-path tests/fuzz/Cargo.toml
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

# Records what concurrent clients are told while a service is killed and restarted, and looks for an order that explains
# it. SEED repeats a plan; FILE=history-SEED.txt judges one that was kept again.
RUNS ?= 50
histories: install
	PYTHONPATH=tests $(BIN)/python -P -m histories --runs $(RUNS) $(if $(SEED),--seed $(SEED)) $(if $(FILE),--file $(FILE))

# Tells random lies at every layer between client, host, store and monitor: each is detected or harmless. SEED and LIE repeat.
lies: RUNS = 1000
lies: install
	PYTHONPATH=tests:tests/adversarial $(BIN)/python -P -m lies --runs $(RUNS) $(if $(SEED),--seed $(SEED)) $(if $(LIE),--lie $(LIE))

# Cuts the power of a recorded service at seeded moments. IMAGE=N TRACE=FILE SEED=S repeats one image.
IMAGES ?= 50
powercut: install
	PYTHONPATH=tests $(BIN)/python -P -m crash.powercut --images $(IMAGES) $(if $(SEED),--seed $(SEED)) \
		$(if $(TRACE),--trace $(TRACE)) $(if $(IMAGE),--image $(IMAGE))

# The evidence that the monitor deserves its trust: runs each tool of tests/assure.toml. FULL=1: the long runs; ONLY=size,loom: these.
assure: install
	PYTHONPATH=tests $(BIN)/python -P -m assure $(if $(FULL),--full) $(if $(ONLY),--only $(ONLY))

# The lines of trusted code, file by file.
size: install
	@PYTHONPATH=tests $(BIN)/python -P -m assure.trusted_size

# All interleavings of verifier threads that share clocks, and canaries. A build of its own: atomics are loom's.
loom:
	@mkdir -p target
	@RUSTFLAGS="--cfg loom" cargo test --quiet -p zetakv-verifier --lib --target-dir target/loom interleavings -- --nocapture \
		> target/loom.log 2>&1 || (cat target/loom.log; echo "ASSURANCE loom result=failed"; exit 1)
	@grep -E "interleavings$$|finds a fault" target/loom.log; grep ASSURANCE target/loom.log

# Searches the model of sessions, restarts and certificates, with each rule left out and with all. RULE=name shows what happens without one.
search-sessions:
	@cargo run --quiet --release -p zetakv-session-model -- $(or $(RULE),$(SECONDS),600)

# Plays random scripts, honest ones and lies, on the verifier and on its executable model. SEED repeats a run.
FAMILIES ?= 1000
model: install
	PYTHONPATH=tests $(BIN)/python -P -m model --families $(FAMILIES) $(if $(SEED),--seed $(SEED))

# Fuzzes all that monitor and prover read from others, each target for SECONDS. KEEP=1: what is found goes into tests/fuzz/corpus.
fuzz:
	@PYTHONPATH=tests $(PYTHON) -P -m fuzz --seconds $(or $(SECONDS),10) $(if $(SEED),--seed $(SEED)) $(if $(TARGET),--target $(TARGET)) \
		$(if $(INPUT),--input $(INPUT)) $(if $(KEEP),--keep)

# Every log that a malicious host can write, on small trees, as far as it comes in so many seconds; and every check by its absence.
search:
	@mkdir -p target; rm -f target/search.txt
	@SEARCH_SECONDS=$(or $(SECONDS),600) SEARCH_SUMMARY=$(CURDIR)/target/search.txt cargo test --quiet --release -p zetakv-verifier --lib \
		long_search -- --ignored --nocapture; status=$$?; cat target/search.txt || echo "ASSURANCE search result=failed"; exit $$status

# Changes the verifier, one place at a time, and wants a test to fail. Hours, on a machine of its own; FILE=...: the changes of one file.
mutants: install
	@PYTHONPATH=tests $(BIN)/python -P -m assure.mutants $(if $(FILE),--file $(FILE))

clean:
	rm -rf $(VENV) target
