# Cordon's build. `make` or `make help` lists what there is.

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

MODULE   := github.com/cordon-security/cordon
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  := -s -w -X $(MODULE)/internal/service.version=$(VERSION)
PROGRAMS := $(notdir $(patsubst %/main.go,%,$(wildcard cmd/*/main.go)))
GOBUILD  := CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)'
BIN      := $(CURDIR)/bin
TOOLS    := $(BIN)/tools
PROTO    := $(wildcard internal/wire/v1/*.proto)

# Packages whose tests boot hosts, drive a browser or run whole programs: the
# race detector would slow the machines in them, not look at our goroutines.
NO_RACE  := ^$(MODULE)/(cmd|packaging|internal/demo|internal/testlan|internal/rooms)(/|$$)
TIMEOUT  ?= 15m
ARGS     ?=

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: check-go
check-go:
	@packaging/check-go.sh

.PHONY: install-deps
install-deps: ## install the Debian packages that build, demo and tests need and that are missing (root)
	@packaging/install-deps.sh all

.PHONY: build
build: check-go ## build every program into bin/, static
	@mkdir -p '$(BIN)'
	@for p in $(PROGRAMS); do echo "build bin/$$p"; $(GOBUILD) -o "$(BIN)/$$p" "./cmd/$$p"; done
	@$(GOBUILD) -o '$(BIN)/testlan-payload' ./internal/testlan/payload

.PHONY: demo
demo: ## play the whole story on a LAN of namespaces, as root; ARGS=--keep leaves it up
	@packaging/install-deps.sh demo
	@$(MAKE) --no-print-directory build
	'$(BIN)/cordon' demo $(ARGS)

.PHONY: test
test: ## lint, unit and integration tests, as root
	@packaging/install-deps.sh all
	@$(MAKE) --no-print-directory lint build test-go

.PHONY: test-go
test-go: check-go ## the Go tests alone, with the race detector where it helps
	@status=0; \
	go test -race -count=1 -timeout $(TIMEOUT) $$(go list ./... | grep -Ev '$(NO_RACE)') || status=1; \
	go test -count=1 -timeout $(TIMEOUT) $$(go list ./... | grep -E '$(NO_RACE)') || status=1; \
	exit $$status

.PHONY: test-demo
test-demo: build ## the demo as a test: it fails when a step is not as it should be
	'$(BIN)/cordon' demo $(ARGS)

.PHONY: test-long
test-long: check-go ## every fuzz target for FUZZTIME (1m) each, then the tests three times over, long loops included
	@packaging/fuzz.sh '$(or $(FUZZTIME),1m)'
	CORDON_TEST_LONG=true go test -count=3 -timeout 2h $$(go list ./...)

.PHONY: bench
bench: check-go ## Go benchmarks; the figures of docs/BENCHMARKS.md name their own commands
	go test -run '^$$' -bench . -benchmem -timeout 1h $$(go list ./...)

.PHONY: lint
lint: check-go lint-format lint-vet lint-generated ## gofmt, go vet, staticcheck, and that generated files are fresh

.PHONY: lint-format
lint-format:
	@bad=$$(gofmt -l .); \
	if [ -n "$$bad" ]; then echo "not gofmt-ed (run gofmt -w on them):"; echo "$$bad"; exit 1; fi
	@for s in .ci/run packaging/*.sh; do bash -n "$$s"; done

.PHONY: lint-vet
lint-vet:
	go vet ./...
	go tool staticcheck ./...

# protoc comes from Debian, its plugins from go.mod, so a clone needs no other tool.
$(TOOLS)/protoc-gen-go $(TOOLS)/protoc-gen-connect-go: go.mod go.sum
	@mkdir -p '$(TOOLS)'
	@go build -o '$(TOOLS)/' google.golang.org/protobuf/cmd/protoc-gen-go connectrpc.com/connect/cmd/protoc-gen-connect-go

# $(call protoc,DIR) writes the generated files below DIR.
protoc = PATH='$(TOOLS)':$$PATH protoc --go_out="$(1)" --go_opt=module=$(MODULE) \
	--connect-go_out="$(1)" --connect-go_opt=module=$(MODULE) $(PROTO)

.PHONY: generate
generate: check-go $(TOOLS)/protoc-gen-go $(TOOLS)/protoc-gen-connect-go ## write the wire protocol's Go files again
	$(call protoc,.)

# The comment with protoc's own version is left out of the comparison, so that
# another Debian release does not fail the lint.
.PHONY: lint-generated
lint-generated: $(TOOLS)/protoc-gen-go $(TOOLS)/protoc-gen-connect-go
	@tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	$(call protoc,$$tmp); \
	for f in $$(cd "$$tmp" && find . -name '*.go'); do \
		diff -u -I '^// .*protoc ' "$$f" "$$tmp/$$f" || { echo "$$f is stale: run make generate"; exit 1; }; \
	done

.PHONY: clean
clean: ## remove what build made
	rm -rf '$(BIN)'
