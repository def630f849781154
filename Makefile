# `make` lists what there is.

.DEFAULT_GOAL := help
.PHONY: help run test check fmt doc wasm node package reliability oracle fuzz deny clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## build, start a server with real data and walk through a sync in the terminal
	cargo build --release --locked -p syncline-cli -p xtask
	scripts/fetch-testdata --release
	scripts/demo

test: ## everything: format, lints, tests, docs, WebAssembly, packages (what CI runs)
	scripts/test

check: ## the fast part: format, lints, tidy
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo run -q --locked -p xtask -- tidy

fmt: ## format the code
	cargo fmt --all

doc: ## build the API documentation, target/doc/syncline/index.html
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

wasm: ## build the engine for the browser
	scripts/wasm

node: ## build the package for Node and test it against a real server
	scripts/node

package: ## make what people download: a tarball and npm packages, in dist/
	scripts/package

# `make reliability ARGS="kill server --times 500"`; ARGS=--help lists everything.
ARGS ?= slice
reliability: ## break real processes on purpose; ARGS=--help lists how
	cargo build --locked -p syncline-cli
	cargo run -q --locked -p syncline-reliability -- $(ARGS)

oracle: ## 200 devices and 5,000 changes against a real server, compared with SQL, three times
	SYNCLINE_ORACLE_SUBSCRIPTIONS=200 SYNCLINE_ORACLE_CHANGES=5000 \
	  cargo test --release --locked -p syncline-cli --test it -- --nocapture --test-threads 1 oracle_

fuzz: ## look for inputs that do harm: make fuzz TARGET=rule SECONDS=300 (TARGET=all)
	scripts/fuzz $(TARGET) $(SECONDS)

deny: ## check licences, sources and advisories of all dependencies
	scripts/deny

clean: ## remove everything built or fetched
	cargo clean
	rm -rf .tools dist packages/node/dist packages/node/native packages/node/build packages/node/node_modules
