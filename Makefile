# make help lists the targets. Everything a fleet keeps lies under DOTMAC_HOME; `make clean` never touches it.

export DOTMAC_HOME ?= .dotmac
export DOTMAC_PORT_BASE
export DOTMAC_OTLP_ENDPOINT

CARGO ?= cargo
TARGET = $${CARGO_TARGET_DIR:-target}/debug
PROGRAMS = dotmac dotmac-controller dotmac-agent demo-isp
DOTMAC = "$$DOTMAC_HOME/bin/dotmac" --home "$$DOTMAC_HOME"
# Programs and benchmarks of the release profile; ARGS are passed on (ARGS=--help). PROFILE=bench builds in a third of the
# time, without optimising over crates: for one change against another.
PROFILE ?= release
BENCH = $(CARGO) build --profile $(PROFILE) --locked $(PROGRAMS:%=--bin %) --bin dotmac-benches && \
  "$${CARGO_TARGET_DIR:-target}/release/dotmac-benches"
# What stories need beyond our programs: a story whose peer is not to be had is skipped, except in CI (CI=true).
STORY_PEERS = for peer in otelcol libfaketime prometheus promtool weed; do \
  sh tests/peers/build.sh $$peer || case "$$CI" in true|1) exit 1 ;; esac; done
on = $(filter-out 0 no false,$(1))

.DEFAULT_GOAL := help
.PHONY: help up status down build install preflight check test peers bench bench-deploy bench-commits bench-platform \
  bench-memory bench-tracing bench-api bench-etcd bench-churn fleet load mutants fuzz-api sim replay upgrades chaos clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

up: install ## Build, then start the fleet, or renew the one that runs, process by process (DETACH=1: in the background)
	@exec $(DOTMAC) local up $(if $(call on,$(DETACH)),--detach)

status: ## What runs, since when and where
	@test -x "$$DOTMAC_HOME/bin/dotmac" || { echo "nothing is installed in $$DOTMAC_HOME: make up"; exit 1; }
	@exec $(DOTMAC) local status

down: ## Stop all of it, instances too (PURGE=1: then list the data, ask, and delete it)
	@test -x "$$DOTMAC_HOME/bin/dotmac" || { echo "nothing is installed in $$DOTMAC_HOME"; exit 0; }; \
	  exec $(DOTMAC) local down $(if $(call on,$(PURGE)),--purge)

preflight: ## Whether this machine can build and run it, and how long that takes
	@sh deploy/preflight.sh

# The dev profile: its first build takes a third of the release profile's time, and what is hot (signatures, digests,
# the store) is optimised in it all the same (Cargo.toml). DETACH, PURGE and the ports do not change what is built.
build: preflight
	@$(CARGO) build --locked $(PROGRAMS:%=--bin %)

# Renaming keeps programs that run on their old file, and a reader never sees half of one.
install: build
	@mkdir -p "$$DOTMAC_HOME/bin" || { echo "DOTMAC_HOME=$$DOTMAC_HOME cannot be written: name another directory"; exit 1; }
	@for program in $(PROGRAMS); do \
	  from="$(TARGET)/$$program" to="$$DOTMAC_HOME/bin/$$program"; \
	  cmp -s "$$from" "$$to" && continue; \
	  cp "$$from" "$$to.new" && chmod 755 "$$to.new" && mv -f "$$to.new" "$$to" \
	    || { rm -f "$$to.new"; echo "$$to cannot be written: is the disk full?"; exit 1; }; \
	done

# One commit always gets one verdict: what is drawn at random is drawn from a fixed seed here, and anew in the others.
check: ## Format, lints, docs, every test and a short fuzz of the API
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked
	$(CARGO) build --workspace --bins --locked
	@$(STORY_PEERS)
	PROPTEST_RNG_SEED=1 $(CARGO) test --workspace --locked
	@FUZZ_ARGUMENTS="--seed 1" sh tests/peers/fuzz-api.sh 5

test: ## Every test, without lints and docs
	$(CARGO) build --workspace --bins --locked
	@$(STORY_PEERS)
	$(CARGO) test --workspace --locked

peers: ## Build the pinned peers of tests and benchmarks, once (PEERS="etcd": only these)
	@sh tests/peers/build.sh $(PEERS)

bench: ## Every benchmark in turn, and a table (17 minutes after the release build) -> target/bench/*.json
	@sh tests/peers/build.sh etcd etcd-watch
	@$(BENCH) all $(ARGS)

bench-deploy: ## Request to active over 100 deployments, one by one and 10 at a time -> target/bench/deploy.json
	@$(BENCH) deploy $(ARGS)

bench-commits: ## Commits a second with 1, 16 and 256 writers on three nodes, each synced -> target/bench/commits.json
	@$(BENCH) commits $(ARGS)

bench-platform: ## The platform API of one agent against a bare axum handler -> target/bench/platform.json
	@$(BENCH) platform $(ARGS)

bench-memory: ## Resident memory of idle agents, and of controllers with AGENTS=1000 -> target/bench/memory.json
	@$(BENCH) memory $(if $(AGENTS),--agents $(AGENTS)) $(ARGS)

bench-tracing: ## Deployments and shows: traced, with the collector away or hung, and not -> target/bench/tracing.json
	@$(BENCH) tracing $(ARGS)

bench-etcd: ## Writes, linearizable reads, watchers, memory and disk against three members of etcd -> target/bench/etcd.json
	@sh tests/peers/build.sh etcd etcd-watch etcd-benchmark
	@$(BENCH) etcd $(ARGS)

bench-churn: ## Whether the disk of the controllers levels off under commits without end -> target/bench/churn.json
	@$(BENCH) churn $(ARGS)

fleet: ## AGENTS=1000 simulated agents: enrolment, fan-out, reconnection -> target/bench/fleet.json
	@$(BENCH) fleet $(if $(AGENTS),--agents $(AGENTS)) $(ARGS)

bench-api: ## Measure the API against a bare axum handler, and watch fan-out against etcd -> target/bench/api.json
	@sh tests/peers/build.sh etcd etcd-watch
	@$(BENCH) api $(ARGS)

load: ## 2,000 tenants, 200 watchers, 100 clients, and one caller who floods -> target/bench/load.json
	@$(BENCH) load $(ARGS)

fuzz-api: ## Ask a fleet of its own all that the OpenAPI document allows and forbids (EXAMPLES=200 an operation)
	@$(CARGO) build --locked $(PROGRAMS:%=--bin %)
	@sh tests/peers/fuzz-api.sh $(or $(EXAMPLES),200)

mutants: ## Switch off one guard at a time and show that its law's test then fails
	$(CARGO) run --quiet --locked -p dotmac-tests --bin mutants

chaos: ## Cut power, kill, partition, fill and break disks, flip bits (as root) -> target/bench/chaos.json
	@$(CARGO) build --locked $(PROGRAMS:%=--bin %) --bin dotmac-chaos
	@"$(TARGET)/dotmac-chaos" $(if $(POWER_CUTS),--power-cuts $(POWER_CUTS)) $(if $(KILLS),--kills $(KILLS)) \
	  $(if $(PARTITIONS),--partitions $(PARTITIONS)) $(if $(DISK_FAULTS),--disk-faults $(DISK_FAULTS)) \
	  $(if $(BIT_FLIPS),--bit-flips $(BIT_FLIPS))

upgrades: ## Upgrade fleets of the version before, take it back, finalize (builds that version once: ten minutes)
	@sh tests/peers/build.sh previous
	$(CARGO) build --workspace --bins --locked
	$(CARGO) test --locked -p dotmac-tests --test stories -- upgrade

sim: ## Whole clusters in one thread under seeded faults (SEEDS=200, FROM=1): 4 minutes
	@$(CARGO) test --quiet --locked -p dotmac-tests --test simulation -- --seeds $(or $(SEEDS),200) --from $(or $(FROM),1)

replay: ## One of those clusters again, every event in words (SEED=7)
	@test -n "$(SEED)" || { echo "name the seed: make replay SEED=7"; exit 1; }
	@$(CARGO) test --quiet --locked -p dotmac-tests --test simulation -- --replay $(SEED)

clean: ## Forget what was built; data stays
	$(CARGO) clean
