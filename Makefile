# sentryd: `make help` says what there is. Needs Go, git and make; gcc for the
# race detector (without it the tests run, and say that they ran without).

SHELL    := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
FUZZTIME ?= 20s
SOAKTIME ?= 2h
TESTFLAGS ?=
BENCHFLAGS ?=
VMTESTFLAGS ?=
CONNECTORFLAGS ?=
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOTEST   := go run ./internal/gotest
# -p 2: the packages start thousands of processes, and timing is part of some tests.
UNIT     = $$(go list ./... | grep -v -e '/integration' -e '/lint$$')
# The race detector needs cgo: a C compiler and the headers of libc.
RACE     := $(shell [ "$$(go env CGO_ENABLED)" = 1 ] && printf '\043include <stdlib.h>\n' | $$(go env CC) -fsyntax-only -x c - 2>/dev/null && echo -race)

.PHONY: help
help: ## print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

.PHONY: build
build: ## build bin/sentryd, one static binary
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)' -o bin/sentryd ./cmd/sentryd

.PHONY: run
run: build ## run the quickstart in the foreground; within seconds a program ends and is started again
	@dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; \
	echo "In another terminal:"; \
	echo "  export SENTRYD_RUNTIME_DIR=$$dir PATH=$(CURDIR)/bin:\$$PATH"; \
	echo "  cd $(CURDIR)/examples"; \
	echo "  sentryd status -c ./quickstart.yaml"; \
	echo "  curl -d scale=3 http://127.0.0.1:8001/type/tick"; \
	echo "Ctrl-C stops it and all that it runs."; echo; \
	bin/sentryd start -c examples/quickstart.yaml --runtime-dir "$$dir"

.PHONY: test
test: check unit integration ## run every test that this host allows: check, unit with the race detector, integration

.PHONY: check
check: ## check formatting, vet, staticcheck, the repository's own rules, shell and Vagrantfile syntax
	@bad=$$(gofmt -l $$(git ls-files --cached --others --exclude-standard '*.go')); \
	if [ -n "$$bad" ]; then echo "not formatted (gofmt -w):"; echo "$$bad"; exit 1; fi
	go vet ./...
	go run $(STATICCHECK) ./...
	$(GOTEST) ./lint
	bash -n .ci/run
	@if command -v ruby >/dev/null; then echo "ruby -c Vagrantfile"; ruby -c Vagrantfile; \
	elif [ "$${SENTRYD_FULL:-}" = 1 ]; then echo "no ruby: cannot check the Vagrantfile"; exit 1; \
	else echo "skip: the Vagrantfile's syntax needs ruby"; fi

.PHONY: unit
unit: ## run the packages' own tests, with the race detector where there is a C compiler
	@if [ -z "$(RACE)" ]; then \
	  if [ "$${SENTRYD_FULL:-}" = 1 ]; then echo "no C compiler: the full run needs the race detector"; exit 1; fi; \
	  echo "no C compiler (gcc, libc6-dev): the tests run without the race detector"; fi
	$(GOTEST) $(RACE) -p 2 -timeout 10m $(TESTFLAGS) $(UNIT)

.PHONY: integration
integration: build ## test bin/sentryd with real programs, as root as far as root is
	SENTRYD_BIN=$(CURDIR)/bin/sentryd $(GOTEST) -count=1 -timeout 10m $(TESTFLAGS) ./integration/...

.PHONY: vm-test
vm-test: ## run the leaves', short integration and systemd tests under Debian's 6.1 and 6.12, in qemu
	go run ./internal/vmtest $(VMTESTFLAGS)

.PHONY: bench
bench: build ## compare with a bare loop in C and with the peers that are installed
	go run ./bench $(BENCHFLAGS)
	go run ./bench/connector $(CONNECTORFLAGS)

.PHONY: survive
survive: build ## print what becomes of a program when its supervisor gets SIGKILL: sentryd and the peers that are installed
	go run ./bench -survive -sentryd bin/sentryd

.PHONY: soak
soak: build ## kill and re-exec bin/sentryd a thousand times under load; SENTRYD_SEED repeats a run
	SENTRYD_SOAK=1 SENTRYD_BIN=$(CURDIR)/bin/sentryd $(GOTEST) -count=1 -timeout $(SOAKTIME) -run 'TestKilled|TestNoLineIsLost|TestDamagedJournal|TestReexecUnderLoad|TestHangupStorm|TestTermInReexec' $(TESTFLAGS) ./integration

.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZTIME (20s)
	@for pkg in $$(go list ./...); do \
	  list=$$(go test -list '^Fuzz' $$pkg); \
	  for target in $$(grep '^Fuzz' <<<"$$list" || true); do \
	    echo "== $${pkg#*sentryd/sentryd/} $$target"; \
	    go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 100x -parallel 2 $$pkg; \
	  done; \
	done

.PHONY: cover
cover: ## write cover/index.html and print the total
	@mkdir -p cover
	go test -p 2 -coverprofile cover/profile $(TESTFLAGS) $(UNIT)
	@go tool cover -html cover/profile -o cover/index.html
	@go tool cover -func cover/profile | tail -1

.PHONY: clean
clean: ## remove what was built
	rm -rf bin cover
