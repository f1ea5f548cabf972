# What each target does is written in README.md.
# VERSION may be given; else it comes from git, or from the file VERSION of a release.

PREFIX  ?= /usr/local
DESTDIR ?=
SBINDIR ?= $(PREFIX)/sbin
MANDIR  ?= $(PREFIX)/share/man
BASHDIR ?= $(PREFIX)/share/bash-completion/completions
DOCDIR  ?= $(PREFIX)/share/doc/imapd
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || cat VERSION 2>/dev/null || echo unknown)

SHELL       := /bin/bash
.SHELLFLAGS := -o pipefail -ec
FUZZTIME    ?= 30s

all: imapd

# go build is itself the judge of what is out of date.
imapd: FORCE
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $@ .

install: imapd
	install -d $(DESTDIR)$(SBINDIR) $(DESTDIR)$(MANDIR)/man5 $(DESTDIR)$(MANDIR)/man8 $(DESTDIR)$(DOCDIR) $(DESTDIR)$(BASHDIR)
	install -m 755 imapd $(DESTDIR)$(SBINDIR)/imapd
	ln -sf imapd $(DESTDIR)$(SBINDIR)/imapctl
	for page in man/*.[58]; do install -m 644 $$page $(DESTDIR)$(MANDIR)/man$${page##*.}/; done
	install -m 644 contrib/imapctl.bash $(DESTDIR)$(BASHDIR)/imapctl
	install -m 644 README.md CHANGES LICENSE $(DESTDIR)$(DOCDIR)
	cp -R contrib $(DESTDIR)$(DOCDIR)/

run: imapd
	MAILDIR='$(MAILDIR)' LISTEN='$(LISTEN)' contrib/run.sh

test:
	$(GO) run ./test/suite

lint:
	$(GO) run ./test/suite -only lint

e2e:
	$(GO) run ./test/suite -only e2e

# The lengths that a release is held to; hours, not minutes.
soak:
	IMAPD_SOAK=1 $(GO) run ./test/suite -timeout 6h

# Ratios beside Dovecot; BENCH='-large -only select' and so on, see `go doc ./test/bench`.
bench:
	$(GO) run ./test/bench $(BENCH)

# Each fuzz target for FUZZTIME.
fuzz:
	$(GO) run ./test/suite -only fuzz -fuzztime $(FUZZTIME)

clean:
	rm -rf imapd imapctl run .tools

FORCE:
.PHONY: all install run test lint e2e soak bench fuzz clean FORCE
