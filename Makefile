# The commands of this repository. `make` alone lists them.

SEEDS ?= 200
SHAPE ?= 3

.PHONY: help run test check fix sim replay shrink mutations bench

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

sim: ## Run so many hostile histories of a cluster; goes on where it was interrupted (SEEDS=200, SHAPE=3)
	@scripts/sim.sh run --seeds $(SEEDS) --shape $(SHAPE)

replay: ## Run one history again and tell its story (SEED=17, SHAPE=3)
	@scripts/sim.sh replay $(SEED) --shape $(SHAPE)

shrink: ## Find the shortest history that still fails as this one does (SEED=17, SHAPE=3)
	@scripts/sim.sh shrink $(SEED) --shape $(SHAPE)

mutations: ## Plant every bug there is a name for, and look for it
	@scripts/sim.sh mutations

bench: ## Run the benchmarks
	@scripts/setup.sh
	@scripts/cargo.sh bench --locked --package baton-benches
