# penne: build, run, check, test, measure. `make help` lists the targets.

GO      ?= go
# The product is one static binary; tests under -race turn cgo on for themselves.
STATIC  := CGO_ENABLED=0 $(GO)
TOOLS   := .cache/tools

# Packages with unit tests: everything except the end-to-end tests, which drive bin/pasta.
E2E     := ./test/e2e/...
UNITS   = $$($(GO) list ./... | grep -v /test/e2e)
# The end-to-end tests that a binary with the race detector passes too: what the control thread does beside live shards.
RACES   := ^Test(Auto|Forwarded|Capture|Statistics)|Follow|HostGetsAnother|LinkGoes|Parallel|Short|Crowd

# Set for `make run`: the shell command line to run inside; empty means an interactive shell.
CMD     ?=
export CMD
# Set for `make perf`: a regular expression over row names, and how often each cell is measured.
SCENARIO ?=
ROUNDS  ?=

.DEFAULT_GOAL := build
.PHONY: help build run ready check fmt vet lint race purego arm64 fuzzseeds bench test units e2e perf fuzz clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## /{printf "%-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/penne and its names bin/pasta and bin/passt
	@mkdir -p bin
	$(STATIC) build -trimpath -ldflags '-s -w -E penne/internal/sys.entry' -o bin/penne ./cmd/penne
	@ln -sf penne bin/pasta
	@ln -sf penne bin/passt

run: build ## run CMD (or a shell) in a new namespace connected by bin/pasta
	@.ci/install run
	@if [ -n "$$CMD" ]; then exec bin/pasta --config-net -f -- sh -c "$$CMD"; else exec bin/pasta --config-net; fi

# What tests need beside Go: compiler and headers of the race detector, and the programs that tests drive.
ready:
	@.ci/install test

check: fmt vet lint race purego arm64 fuzzseeds bench ## every static check, and the unit tests in every variant

fmt:
	@files=$$(gofmt -l .); [ -z "$$files" ] || { echo "not gofmt-ed:"; echo "$$files"; exit 1; }

vet:
	$(STATIC) vet ./...

lint: $(TOOLS)/staticcheck $(TOOLS)/golangci-lint
	CGO_ENABLED=0 $(TOOLS)/staticcheck ./...
	CGO_ENABLED=0 $(TOOLS)/golangci-lint run

# The tools live in a module of their own, so that the product's go.mod names only what the product uses.
$(TOOLS)/staticcheck: .ci/tools/go.mod .ci/tools/go.sum
	$(STATIC) -C .ci/tools build -o $(CURDIR)/$@ honnef.co/go/tools/cmd/staticcheck

$(TOOLS)/golangci-lint: .ci/tools/go.mod .ci/tools/go.sum
	$(STATIC) -C .ci/tools build -o $(CURDIR)/$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

race: ready
	CGO_ENABLED=1 $(GO) test -race -timeout 10m $(UNITS)
	CGO_ENABLED=1 $(GO) build -race -o .cache/race/pasta ./cmd/penne
	PENNE_PASTA=$(CURDIR)/.cache/race/pasta $(STATIC) test -count 1 -timeout 10m -run '$(RACES)' $(E2E)

purego: ready
	$(STATIC) test -tags purego -timeout 10m $(UNITS)

arm64: ready
	GOARCH=arm64 $(STATIC) build ./...
	GOARCH=arm64 $(STATIC) vet ./...
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && GOARCH=arm64 $(STATIC) test -c -o "$$dir/" ./...
	GOARCH=arm64 $(STATIC) test -exec qemu-aarch64 ./csum # its assembly

fuzzseeds:
	$(STATIC) test -run '^Fuzz' -timeout 5m $(UNITS)

bench:
	$(STATIC) test -run '^$$' -bench . -benchtime 1x -timeout 10m $(UNITS)

test: build units e2e ## unit tests, then (as root) the end-to-end tests over bin/pasta

units: ready
	$(STATIC) test -timeout 10m $(UNITS)

e2e: build ready
	$(STATIC) test -count 1 -timeout 10m $(E2E)

perf: build ## measure against peers; SCENARIO=regex picks rows, ROUNDS=n repeats
	@.ci/install perf
	@mkdir -p .cache
	$(STATIC) build -trimpath -o .cache/perf ./perf/cmd/perf
	.cache/perf -scenario '$(SCENARIO)' $(if $(ROUNDS),-rounds $(ROUNDS)) -out perf/results

FUZZTIME ?= 10s
fuzz: ## fuzz every parser for FUZZTIME each
	@for pkg in $(UNITS); do \
		for f in $$($(STATIC) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			echo "$$pkg $$f"; $(STATIC) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
		done; \
	done

clean: ## remove what was built
	rm -rf bin .cache
