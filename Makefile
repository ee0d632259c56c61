# The commands of this repository. `make` alone lists them.

SEEDS ?= 200

.PHONY: help run test check fix sim bench

help: ## List the commands
	@sed -n 's/^\([a-z]*\): ## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

run: ## Build a release, start a devnet of three nodes and post a transaction (NODES=1, FOR=30s)
	@scripts/run.sh

test: ## Install what is missing, build and run every test
	@scripts/test.sh

check: ## Format, lints, docs, licences, scripts; edits nothing
	@scripts/setup.sh
	@scripts/check.sh

fix: ## Format, and apply what clippy can fix
	@scripts/setup.sh
	@scripts/cargo.sh clippy --fix --allow-dirty --allow-staged --workspace --all-targets --profile ci --features failpoints
	@cargo fmt --all

sim: ## Run the simulation over many seeds (SEEDS=200)
	@scripts/setup.sh
	@BATON_SEEDS=$(SEEDS) scripts/cargo.sh test --locked --profile ci --features failpoints --package baton-sim

bench: ## Run the benchmarks
	@scripts/setup.sh
	@scripts/cargo.sh bench --locked --package baton-benches
