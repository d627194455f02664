# DDAS: everything a user or developer runs from a clone. `make help` lists it.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory

VENV ?= .venv
SEED ?= 0
PYTHON_BIN := $(VENV)/bin/python
# libtorch of the environment: compile and link flags for the searcher alone.
LIBTORCH_ENV := eval "$$(scripts/libtorch-env.sh $(VENV))"

.PHONY: help
help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

# The environment is complete only once pip has ended: hence a stamp.
$(VENV)/.ready: python/requirements-dev.txt python/requirements-other-pillow.txt scripts/setup.sh
	@scripts/setup.sh $(VENV) python/requirements-dev.txt
	@touch $@

.PHONY: env
env: $(VENV)/.ready ## Python environment with libtorch in .venv

.PHONY: build
build: build-loader build-search build-python ## Both programs (target/release) and the Python package (into .venv)

.PHONY: build-loader
build-loader: ## ddas-loader alone; needs neither Python nor libtorch
	@scripts/patiently.sh "building ddas-loader" cargo build --release -p ddas-loader

.PHONY: build-search
build-search: env ## ddas-search alone
	@$(LIBTORCH_ENV); scripts/patiently.sh "building ddas-search" cargo build --release -p ddas-search

.PHONY: build-python
build-python: env ## The Python package `ddas`, installed into .venv
	@scripts/patiently.sh "building the Python package" $(VENV)/bin/maturin build --release -m python/Cargo.toml --interpreter $(PYTHON_BIN) --out target/wheels
	@$(PYTHON_BIN) -m pip install --disable-pip-version-check --quiet --force-reinstall --no-deps "$$(ls -t target/wheels/ddas-*.whl | head -1)"

.PHONY: demo
# The loader needs nothing from the environment: it is built while pip installs.
demo: ## The whole job on handwritten digits: pack, search, serve, train (SEED=0)
	@$(MAKE) -j2 env build-loader
	@$(MAKE) build
	$(PYTHON_BIN) examples/digits/demo.py --seed $(SEED)

.PHONY: test
test: lint test-rust test-python ## Everything, Rust and Python

.PHONY: lint
lint: env ## Formatting, clippy and documentation, warnings refused
	cargo fmt --all -- --check
	$(LIBTORCH_ENV); cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy -p ddas-loader --no-default-features --lib -- -D warnings
	$(LIBTORCH_ENV); RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet

.PHONY: test-rust
test-rust: env ## Unit, documentation and end-to-end tests of all crates
	cargo test
	$(LIBTORCH_ENV); cargo test -p ddas-search

.PHONY: test-python
test-python: build ## The Python package against Pillow, NumPy, PyTorch and running daemons
	DDAS_LOADER=$(CURDIR)/target/release/ddas-loader DDAS_SEARCH=$(CURDIR)/target/release/ddas-search \
	    $(PYTHON_BIN) -m pytest -q python/tests

.PHONY: test-jax
# Apart from `make test`, for JAX is 400 MB.
test-jax: build ## The JAX example, with JAX downloaded into .jax
	$(PYTHON_BIN) -m pip install --disable-pip-version-check --quiet --target .jax 'jax==0.10.2'
	for dtype in f32 f16 bf16; do \
	    DDAS_LOADER=$(CURDIR)/target/release/ddas-loader PYTHONPATH=.jax $(PYTHON_BIN) examples/jax_loop.py --dtype $$dtype; \
	done

.PHONY: bench-torch
bench-torch: build ## Beside torch's DataLoader, 4 minutes: CIFAR=... IMAGENET=... (folders or .tar of class folders), else made here
	DDAS_LOADER=$(CURDIR)/target/release/ddas-loader $(PYTHON_BIN) benches/torch_dataloader.py \
	    $(if $(CIFAR),--cifar $(CIFAR)) $(if $(IMAGENET),--imagenet $(IMAGENET))

.PHONY: bench-sharing
bench-sharing: build-loader ## The CPU of several trainers on one ring beside that of one: DATASET=... (imagenet recipe) or photos made here
	DDAS_LOADER=$(CURDIR)/target/release/ddas-loader python3 benches/sharing.py $(if $(DATASET),--dataset $(DATASET))

.PHONY: bench-opening
bench-opening: ## Opening ten million samples, and entering a run at sample 10^9: time and memory (1 GB in the temporary folder)
	cargo bench -p ddas-benches --bench opening

.PHONY: bench-pinning
bench-pinning: build ## On a machine with a GPU: page-locked batches, checked and timed
	DDAS_LOADER=$(CURDIR)/target/release/ddas-loader $(PYTHON_BIN) benches/pinning.py

.PHONY: bench-peers
bench-peers: ## Beside the other libraries, into benches/RESULTS.md: IMAGES=... CIFAR=... (folders or .tar), else pictures made here
	python3 benches/peers.py $(if $(IMAGES),--images $(IMAGES)) $(if $(CIFAR),--cifar $(CIFAR)) --out benches/RESULTS.md

.PHONY: bench
bench: ## Kernels and pipelines (criterion)
	cargo bench -p ddas-benches

.PHONY: clean
clean: ## Removes builds and demo output, keeps .venv
	cargo clean
	rm -rf demo-run
