# Everything starts here. Debian and root for `test` and `demo`; the rest needs Rust alone.

CARGO ?= cargo
# Where cargo builds: CARGO_TARGET_DIR, `build.target-dir` of cargo's configuration, or ./target.
target_dir = $(shell $(CARGO) metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')

DEMO_PACKAGES := iproute2 nftables iputils-ping tcpdump jq curl procps util-linux busybox-static
TEST_PACKAGES := $(DEMO_PACKAGES) dnsmasq-base etcd-server etcd-client faketime bird2 frr gobgpd exabgp tshark valgrind qemu-system-x86 cpio kmod binutils systemd
BENCH_PACKAGES := iproute2 iperf3 bird2 frr gobgpd openbgpd qemu-system-x86 busybox-static cpio kmod

.DEFAULT_GOAL := help
.PHONY: help build deb build-demo fmt lint test test-systems test-release bench demo demo-down demo-managed demo-managed-down demo-chain demo-chain-down clean test-packages bench-packages demo-packages

help: ## Say what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | column -t -s '|'

build: ## Build weft, optimized
	$(CARGO) build --release -p weft

deb: build ## Make a Debian package of it
	@tests/install dpkg gzip xz-utils binutils
	@packaging/debian/build "$(target_dir)/release/weft" "$(target_dir)"

build-demo: ## Build weft for a first look: in a third of the time
	$(CARGO) build --profile demo -p weft --no-default-features

fmt: ## Format the code
	$(CARGO) fmt --all

lint: ## Check format and lints
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

test: test-packages lint ## Run every test; installs what they need
	$(CARGO) build --release -p weft-load --bin fixed-load
	@bench/load/instructions "$(target_dir)/release/fixed-load"
	$(CARGO) build --workspace --all-targets
	$(CARGO) test --workspace --exclude weft-tests -- --test-threads=3 --skip in_every_mode
	@tests/beside "tests/kernels $(CARGO)" "$(MAKE) --no-print-directory test-systems"

test-systems: test-packages ## Run the tests of whole systems
	$(CARGO) build --workspace --all-targets
	@tests/run "$(target_dir)/debug/weft" $(CARGO)

test-release: test-packages build ## Run them with the optimized binary, and its package under systemd, as before a release
	@tests/run "$(target_dir)/release/weft" $(CARGO)
	@tests/package "$(target_dir)/release/weft"

bench: bench-packages ## Measure Weft beside BIRD, FRR, OpenBGPD, GoBGP and iproute2 (half an hour)
	$(CARGO) build --release -p weft -p weft-bench
	"$(target_dir)/release/weft-bench" --weft "$(target_dir)/release/weft" --json "$(target_dir)/bench.json"
	"$(target_dir)/release/kernel-bench"
	"$(target_dir)/release/discovery-bench"
	"$(target_dir)/release/discovery-bench" --growth
	"$(target_dir)/release/forwarding-bench"
	for mode in gre gre6 chain; do tests/vm -i -t 900 "$(target_dir)/release/forwarding-bench" --only $$mode --rounds 3 --seconds 1; done

demo: demo-packages build-demo ## Bring up two domains and two tenants, and show them
	WEFT="$(target_dir)/demo/weft" PATH="$(target_dir)/demo:$$PATH" examples/two-domains/demo.sh

demo-managed: demo-packages build-demo ## The same with a controller in each domain that says everything
	WEFT="$(target_dir)/demo/weft" PATH="$(target_dir)/demo:$$PATH" examples/managed/demo.sh

demo-managed-down: ## Take that down
	"$(target_dir)/demo/weft" lab down managed

demo-chain: demo-packages build-demo ## A tenant's traffic through a firewall and a meter, and what happens when they die
	WEFT="$(target_dir)/demo/weft" PATH="$(target_dir)/demo:$$PATH" examples/service-chain/demo.sh

demo-chain-down: ## Take that down
	"$(target_dir)/demo/weft" lab down service-chain

demo-down: ## Take the demo down
	"$(target_dir)/demo/weft" lab down two-domains

clean: ## Remove what was built
	$(CARGO) clean

test-packages:
	@tests/install $(TEST_PACKAGES)

bench-packages:
	@tests/install $(BENCH_PACKAGES)

demo-packages:
	@tests/install $(DEMO_PACKAGES)
