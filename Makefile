# Thin: every target is one npm script or one command, so both ways of working agree.
.PHONY: all build test real pure unit system interop sim lint format bench demo check clean packages \
  lab-packages lab-up lab-down e2e bench-lab

all: build

# Debian/Ubuntu packages that the tests and the demo run for real. Nothing is installed when all is there.
PROGRAMS := sanlock iscsiadm tgtd python3 losetup mkfs.ext4 mkfs.xfs sfdisk wipefs blkid xz gcc
PACKAGES := sanlock libsanlock-dev open-iscsi tgt python3 util-linux fdisk e2fsprogs xfsprogs xz-utils gcc libc6-dev fuse3 libfuse3-dev

packages:
	@missing=; for p in $(PROGRAMS); do PATH=$$PATH:/usr/sbin:/sbin command -v $$p >/dev/null || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing packages for:$$missing"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(PACKAGES) >/dev/null; \
	  else \
	    echo "not installed:$$missing (Debian packages: $(PACKAGES)); tests that need them say so and are skipped"; \
	  fi; \
	fi

node_modules/.package-lock.json: package.json package-lock.json
	npm ci --no-audit
	@touch $@

build: node_modules/.package-lock.json
	npm run --silent build

MOCHA := npx mocha --no-config --node-option enable-source-maps \
	--require ./dist/test/helpers/strict-process.js --timeout 5000 --forbid-only --fail-zero

# Everything. Tests that need root or a program that is missing say so and are skipped, never passed. Those with real
# processes wait most of their time; the pure ones have what they leave of the processors, and speak at their end.
test:
	@$(MAKE) --no-print-directory -j2 real pure

real: packages build
	$(MOCHA) 'dist/test/system/**/*.test.js' 'dist/test/interop/**/*.test.js'

pure: build
	@out=$$(nice -n 19 npx mocha --timeout 30000 2>&1); status=$$?; printf '%s\n' "$$out"; exit $$status

unit: build
	npx mocha

system: packages build
	$(MOCHA) 'dist/test/system/**/*.test.js'

interop: packages build
	$(MOCHA) 'dist/test/interop/**/*.test.js'

# make sim SEEDS=100000 [SEED=42]
SEEDS ?= 1000
sim: build
	node --enable-source-maps dist/test/sim/main.js --seeds $(SEEDS) $(if $(SEED),--seed $(SEED))

lint: node_modules/.package-lock.json
	npm run --silent lint
	npm run --silent format:check

# Beside the real sanlock daemon, in one run. ROUNDS=short for a quick look.
ROUNDS ?= full
bench: packages build
	node dist/bench/main.js --rounds $(ROUNDS)

demo: packages build
	node dist/test/demo/main.js

# The lab: virtual machines under QEMU with a real SAN (docs/lab.md). As root; it says so when it cannot run.
LAB_PROGRAMS := qemu-system-x86_64 mmdebstrap mkfs.ext4 modprobe depmod modinfo xz cpio ip nft nsenter
LAB_PACKAGES := qemu-system-x86 mmdebstrap debian-archive-keyring e2fsprogs kmod xz-utils cpio iproute2 nftables util-linux

lab-packages:
	@missing=; for p in $(LAB_PROGRAMS); do PATH=$$PATH:/usr/sbin:/sbin command -v $$p >/dev/null || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing packages for:$$missing"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(LAB_PACKAGES) >/dev/null; \
	  else \
	    echo "not installed:$$missing (Debian packages: $(LAB_PACKAGES))"; \
	  fi; \
	fi

lab-up: lab-packages build
	node dist/test/lab/main.js up

lab-down: build
	node dist/test/lab/main.js down

# make e2e [ONLY=part of a test file's name]
e2e: lab-packages build
	node --enable-source-maps dist/test/lab/main.js e2e $(ONLY)

# Failover beside sanlock in the same lab (docs/measurements.md).
bench-lab: lab-packages build
	node --enable-source-maps dist/test/lab/main.js bench

check: lint test

format: node_modules/.package-lock.json
	npm run --silent format

clean:
	rm -rf dist bench/results
