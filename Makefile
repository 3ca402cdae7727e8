# What is done to this repository, each by one word. `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
CARGO ?= cargo
CARGO_DENY_VERSION := 0.20.2
BINARY = $${CARGO_TARGET_DIR:-target}/debug/brucke
PORT ?= 8080
SEEDS ?= 2000
MINUTES ?= 20

.PHONY: help
help: ## List what make can do.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Show it in a browser, with a Kafka within the process (PORT=8080).
	$(CARGO) build --locked
	@"$(BINARY)" demo --port $(PORT)

.PHONY: test
test: prerequisites lint unit planted client browser bench-smoke deny ## Run everything that must pass before a change lands.
	@echo "make test: passed"
test: chart cluster image-test

.PHONY: lint
lint: ## Check the format, and clippy without a warning.
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- --deny warnings

.PHONY: unit
unit: ## Run cargo's tests: the rooms', the house's order, the documents'.
	$(CARGO) test --locked --workspace

.PHONY: client
client: ## Test the browser client by itself.
	cd clients/browser && node --test

.PHONY: browser
browser: ## Open the demo's page in Chromium.
	$(CARGO) build --locked
	tests/browser/run "$(BINARY)"

.PHONY: picture
picture: ## Take the README's picture of the demo's page.
	$(CARGO) build --locked
	PICTURE=$(CURDIR)/docs/images/console.png tests/browser/run "$(BINARY)"

.PHONY: chart
chart: ## Render the chart and the manifests, and hold them against snapshots (UPDATE=1 writes them).
	$(CARGO) build --locked
	tests/chart/run "$(BINARY)"

.PHONY: chart-docs
chart-docs: ## Make what the chart has of other files: its table of values, a part of its schema.
	"$$(scripts/tools python)" tests/chart/docs.py write

.PHONY: cluster
cluster: ## Install the chart and the manifests on a real API server.
	tests/chart/run cluster

.PHONY: image
image: ## Build the image brucke:VERSION without a daemon (root, buildah).
	$(CARGO) build --locked --release
	scripts/image "$${CARGO_TARGET_DIR:-target}/release/brucke"

.PHONY: image-test
image-test: ## Run the binary from an image's root file system, read-only and not as root.
	$(CARGO) build --locked
	tests/image/run "$(BINARY)"

.PHONY: sim
sim: ## Run the simulation (SEEDS=100000), or replay one seed (SEED=17).
ifdef SEED
	SIM_SEED=$(SEED) SIM_TRACE=1 $(CARGO) test --locked --test sim -- --nocapture no_seed_breaks
else
	SIM_SEEDS=$(SEEDS) $(CARGO) test --locked --test sim -- --nocapture no_seed_breaks
endif

.PHONY: join
join: ## Try 100,000 orders of the join of history, tail and live (SCHEDULES=100000).
	JOIN_SCHEDULES=$${SCHEDULES:-100000} $(CARGO) test --locked --test sim -- --nocapture history_tail_and_live

.PHONY: planted
planted: ## Break the core on purpose, and see the simulation find each way.
	$(CARGO) test --locked --features sabotage --test sim -- --nocapture each_planted_defect

.PHONY: failover
failover: ## Kill replicas while records flow, and print what clients got.
	FAILOVER_CLIENTS=$${FAILOVER_CLIENTS:-100} FAILOVER_RECORDS=$${FAILOVER_RECORDS:-200000} \
	FAILOVER_KILLS=$${FAILOVER_KILLS:-10} FAILOVER_SECONDS=$${FAILOVER_SECONDS:-60} \
		$(CARGO) test --locked --test failover -- --nocapture replicas_die

.PHONY: chaos
chaos: ## Break everything in turn and judge what clients got (MINUTES=20 SEED=1), or one thing (FAULT=name).
	CHAOS_SECONDS=$(if $(FAULT),0,$$(( $(MINUTES) * 60 ))) CHAOS_SEED=$(or $(SEED),1) CHAOS_FAULT=$(FAULT) \
	CHAOS_CLIENTS=$${CHAOS_CLIENTS:-160} \
		$(CARGO) test --locked --test chaos -- --nocapture what_breaks

.PHONY: chaos-each
chaos-each: ## Break each thing by itself, for seeds 1, 2 and 3 (FAULTS="a b"; FRESH=1: each on a stage of its own).
	CHAOS_SECONDS=0 CHAOS_EACH="1 2 3" CHAOS_FAULT="$(FAULTS)" CHAOS_FRESH=$(FRESH) CHAOS_CLIENTS=$${CHAOS_CLIENTS:-160} \
		$(CARGO) test --locked --test chaos -- --nocapture what_breaks

.PHONY: quiet
quiet: ## Let a quiet key's follower come back after 10,000,000 records of others (QUIET_RECORDS=10000000).
	QUIET_RECORDS=$${QUIET_RECORDS:-10000000} $(CARGO) test --locked --test it -- --nocapture truth_quiet

.PHONY: rolling
rolling: ## Replace replicas behind HAProxy and nginx while records flow, and print what clients saw.
	ROLLING_CLIENTS=$${ROLLING_CLIENTS:-2000} ROLLING_RECORDS=$${ROLLING_RECORDS:-60000} ROLLING_WINDOW=$${ROLLING_WINDOW:-20} \
	ROLLING_RATE=$${ROLLING_RATE:-70} \
		$(CARGO) test --locked --test failover -- --nocapture --test-threads=1 rolling

.PHONY: bench
bench: ## Measure what it costs beside a bare writer, on Apache Kafka.
	$(CARGO) bench --locked --bench bench

.PHONY: storm
storm: ## Let 9,900 clients return at once, and then those of two tenants, on Apache Kafka.
	BENCH_PARTS=storm $(CARGO) bench --locked --bench bench

.PHONY: bench-smoke
bench-smoke: ## See whether the measurements run, without measuring.
	$(CARGO) test --quiet --locked --bench bench -- --smoke > /dev/null

.PHONY: deny
deny: cargo-deny ## Check licences, sources and bans of what is linked.
	$(CARGO) deny --locked check bans licenses sources

.PHONY: audit
audit: cargo-deny ## Ask the advisory database, which is fetched from GitHub.
	$(CARGO) deny --locked check advisories

.PHONY: prerequisites
prerequisites: ## Install what the tests need, or name the command that does.
	@.ci/prerequisites

.PHONY: cargo-deny
cargo-deny:
	@command -v cargo-deny > /dev/null \
		|| $(CARGO) install cargo-deny --locked --version $(CARGO_DENY_VERSION)
