# `make demo`, `make test`, `make install`; `make help` lists all targets.
# Needs GNU make; honours DESTDIR, PREFIX and the GNU directory names.

PREFIX ?= /usr/local
prefix ?= $(PREFIX)
exec_prefix ?= $(prefix)
bindir ?= $(exec_prefix)/bin
datarootdir ?= $(prefix)/share
datadir ?= $(datarootdir)
docdir ?= $(datarootdir)/doc/audiohook-collector
mandir ?= $(datarootdir)/man
man8dir ?= $(mandir)/man8
# Not $(prefix)/etc: systemd, operators and the README expect /etc.
sysconfdir ?= /etc
unitdir ?= $(prefix)/lib/systemd/system
bashcompletiondir ?= $(datadir)/bash-completion/completions
zshcompletiondir ?= $(datadir)/zsh/site-functions
fishcompletiondir ?= $(datadir)/fish/vendor_completions.d

INSTALL ?= install
INSTALL_PROGRAM ?= $(INSTALL) -m 0755
INSTALL_DATA ?= $(INSTALL) -m 0644
CARGO ?= cargo
# Arguments of demo, test and bench: make demo ARGS="--for 20", make test ARGS="--test files".
ARGS ?=
# Tests mostly wait, so more of them run at once than there are processors.
RUST_TEST_THREADS ?= 6

target_dir := $(or $(CARGO_TARGET_DIR),target)
# In an unpacked release the binary is in this folder, and nothing is built.
packed := $(wildcard audiohook-collector)
BIN ?= $(or $(packed),$(target_dir)/release/audiohook-collector)
# The directories are exported to these two targets only: in the environment of tests they would override the tests' own.
directories := DESTDIR prefix bindir sysconfdir docdir man8dir datadir unitdir bashcompletiondir zshcompletiondir fishcompletiondir
$(foreach name,$(directories) INSTALL_PROGRAM INSTALL_DATA BIN,$(eval install uninstall: export $(name) := $($(name))))

.PHONY: all bench build chaos demo test clusters static dist deb rpm install uninstall clean help tools
all: build

help:
	@echo 'make demo       build and run it against a simulated Genesys Cloud, with no account (ARGS="--for 20")'
	@echo 'make test       run the tests'
	@echo 'make clusters   run the tests against real OpenSearch and Elasticsearch servers: minutes; needs Java 17 and Maven'
	@echo 'make bench      measure it against minimal programs (ARGS=--short, --growth, "--compare COMMAND…")'
	@echo 'make chaos      inject many faults at once and look for lost or duplicate events (SEED=, FAULTS=1000, LOAD=60)'
	@echo 'make build      build the release binary'
	@echo 'make static     build a static binary without dependencies; its path is printed last'
	@echo 'make dist       pack it, with unit, settings, manual and bill of materials; reproducible'
	@echo 'make deb        make a Debian package of the static binary; its path is printed last'
	@echo 'make rpm        the same as an rpm; needs rpmbuild'
	@echo '                (TARGET=aarch64-unknown-linux-gnu: for aarch64; needs gcc-aarch64-linux-gnu)'
	@echo 'make install    install it as a system service (DESTDIR, PREFIX, bindir, sysconfdir, unitdir, …)'
	@echo 'make uninstall  remove what was installed, except edited settings'

tools:
	@CARGO='$(CARGO)' sh src/install/tools.sh

demo: tools
	$(CARGO) build --locked
	@$(target_dir)/debug/audiohook-collector demo $(ARGS)

# Without ARGS all tests, several programs at once.
test: export RUST_TEST_THREADS := $(RUST_TEST_THREADS)
test: tools
	$(if $(ARGS),$(CARGO) test --locked $(ARGS),@CARGO='$(CARGO)' tests/all.sh)

# Each test starts its own server, which needs a processor and 1 GB of memory.
clusters: tools
	RUST_TEST_THREADS=2 $(CARGO) test --locked --test real_cluster --test real_collector $(ARGS)

bench: tools
	$(CARGO) bench --locked --bench bench -- $(ARGS)

# Tests the release binary. SEED=, FAULTS= and LOAD= are passed in the environment.
SEED ?=
FAULTS ?=
LOAD ?=
chaos: build
	@SEED='$(SEED)' FAULTS='$(FAULTS)' LOAD='$(LOAD)' COLLECTOR_BIN='$(abspath $(target_dir))/release/audiohook-collector' \
		$(CARGO) test --locked --test chaos

build: tools
	$(CARGO) build --release --locked

static: tools
	@CARGO='$(CARGO)' src/install/static.sh

dist: tools
	@CARGO='$(CARGO)' src/install/dist.sh

deb rpm: tools
	@CARGO='$(CARGO)' contrib/packaging/package.sh $@

# An upgrade is `make install` and a restart, so the binary is rebuilt from the sources if there is a cargo. Under sudo there
# may be none; then the binary from `make build` is installed.
install:
	@if [ '$(BIN)' = '$(target_dir)/release/audiohook-collector' ] && { command -v $(CARGO) >/dev/null || [ ! -x '$(BIN)' ]; }; \
		then $(MAKE) --no-print-directory build; fi
	@sh src/install/install.sh

uninstall:
	@sh src/install/uninstall.sh

clean:
	$(CARGO) clean
