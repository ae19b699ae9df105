# For GNU make and BSD make alike: plain rules, no conditionals, no functions.
#
#   make demo          watch a jail's addresses move between two hosts
#   make test          everything that must hold: lint, unit, lab, conformance, interop
#   make bench         figures, in build/bench.json
#   make play          a lab to play with: two hosts, a router, a client
#   make soak          thousands of repetitions
#   make clean         end what a killed lab left behind, remove build/

# FreeBSD's packages have no python3. (`!=` is POSIX's, and in both makes; see .ci/python.)
PYTHON != .ci/python
VENV = .venv
RUN = $(VENV)/bin/python
PYTEST = $(RUN) -m pytest
# Three at once on two cores: a third of the time tests wait for timers of protocols. A file's tests stay together, they share
# a lab; tests/order.py says which files begin first.
PARALLEL = -n 3 --dist loadfile --no-loadscope-reorder

# For the lab (bird2 iproute2 nftables iputils-ping tcpdump perl-base util-linux procps conntrackd conntrack ucarp), Python,
# and what checks our pages.
DEBIAN = bird2 frr openbgpd gobgpd iproute2 nftables iputils-ping tcpdump perl-base util-linux procps python3-venv mandoc \
	prometheus bmake conntrackd conntrack ucarp zsh fish tcsh
# As COMMAND:PACKAGE, so that another package's command will do. BIRD by the routing socket: 13's kernel has no other way.
FREEBSD = python3.11:python311 bird:bird2-rtsock promtool:prometheus
# Parts of Python, and libraries that would have to be compiled.
FREEBSD_PYTHON = py311-sqlite3 py311-hypothesis py311-pyyaml

# Another folder of recorded transcripts for `make conformance`.
TRANSCRIPTS =

.PHONY: all setup packages can-lab lint unit lab conformance interop test demo bench play soak lock clean

all: setup

packages:
	@case $$(uname) in \
	FreeBSD) .ci/install-packages-freebsd $(FREEBSD) $(FREEBSD_PYTHON) ;; \
	*) .ci/install-packages $(DEBIAN) ;; \
	esac

setup: packages $(VENV)/installed

$(VENV)/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "setup: Python 3.11 or newer is needed: make PYTHON=/path/to/it" >&2; exit 1; }
	.ci/venv $(PYTHON) $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

can-lab:
	@.ci/can-lab

# ruff and mypy are not compiled for FreeBSD, and say the same everywhere.
lint: setup
	if [ -x $(VENV)/bin/ruff ]; then $(RUN) -m ruff check . && $(RUN) -m ruff format --check . && $(RUN) -m mypy; \
	else echo "lint: ruff and mypy are not here: see .ci/venv"; fi
	for script in hooks/mobility-hook .ci/*; do case $$script in */run) ;; *) sh -n $$script || exit 1 ;; esac; done
	if command -v shellcheck >/dev/null; then shellcheck --severity=warning hooks/mobility-hook .ci/*; fi

unit: setup
	$(PYTEST) $(PARALLEL) tests/unit

lab: can-lab setup
	$(PYTEST) $(PARALLEL) tests/lab

interop: can-lab setup
	@mkdir -p build
	$(PYTEST) $(PARALLEL) tests/interop

conformance: can-lab setup
	@mkdir -p build
	@transcripts='$(TRANSCRIPTS)'; $(RUN) -m tests.lab.conformance $${transcripts:+--transcripts "$$transcripts"}

# conformance has a test of its own (tests/lab/test_conformance.py); one run of pytest, so that its summary is the end
test: can-lab lint
	@mkdir -p build
	$(PYTEST) $(PARALLEL) -p tests.interop.matrix tests

demo: can-lab setup
	@mkdir -p build
	@$(RUN) -m tests.lab.demo

bench: can-lab setup
	@mkdir -p build
	@$(RUN) -m tests.bench

play: can-lab setup
	@$(RUN) -m tests.lab.play

soak: can-lab setup
	MOBILITY_SOAK=1 $(PYTEST) tests/chaos tests/unit

lock:
	$(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet pip-tools
	{ echo '# What the Makefile installs; made by `make lock`.'; \
	  printf 'hatchling\neditables\n' | build/lock/bin/pip-compile --quiet --extra dev --generate-hashes \
	    --allow-unsafe --strip-extras --no-header --no-annotate --no-emit-index-url --no-emit-trusted-host \
	    --no-emit-find-links --output-file - pyproject.toml -; } > build/requirements.lock
	mv build/requirements.lock requirements.lock

clean:
	if [ -x $(RUN) ] && [ -f tests/lab/clean.py ]; then $(RUN) -m tests.lab.clean; fi
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis
