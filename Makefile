# make demo: train, export and score on real images.  make test: everything that CI checks.
PYTHON ?= python3
# Another Python has an environment of its own: make test PYTHON=python3.12
VENV ?= .venv$(if $(filter-out python3,$(PYTHON)),-$(notdir $(PYTHON)))
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo figures export-figures bench guard gpu gpu-pack gpu-page soak test test-device tools lint install clean

demo: $(READY)
	$(BIN)/ahl demo --out demo

# With an empty cache, so that the training time includes the features.
figures: $(READY)
	cache="$$(mktemp -d)" && { AHL_CACHE="$$cache" $(BIN)/ahl demo --out demo; failed=$$?; rm -rf "$$cache"; exit $$failed; }
	$(BIN)/python -m benchmarks.readme demo/report.json README.md

export-figures: demo
	$(BIN)/ahl export demo/run --out demo/all.ahl --openvino --int8
	$(BIN)/python -m benchmarks.export_figures demo/run demo/all.ahl docs/results/export.md

bench: demo/all.ahl
	$(BIN)/python -m benchmarks.speed --bundle demo/all.ahl --page docs/results/speed.md

guard: build/guard.ahl
	$(BIN)/python -m benchmarks.guard build/guard.ahl benchmarks/baseline.json

# Speed does not depend on the weights: one epoch is enough.
build/guard.ahl: | $(READY)
	$(BIN)/ahl train --data elpv --epochs 1 --out build/guard
	$(BIN)/ahl export build/guard --out $@

# On a machine with a GPU, six minutes; ARGS: options of the check. In .venv if it exists, else with python3 and build/gpu.
gpu:
	tests/gpu/check $(ARGS)

# Put into build/gpu what a machine without a network lacks. Copy it with the checkout.
gpu-pack: $(READY)
	$(BIN)/python tests/gpu/pack.py

gpu-page: $(READY)
	$(BIN)/python tests/gpu/page.py benchmarks/gpu.json docs/results/gpu.md README.md

# A line with three sources for 15 minutes; shorter: make soak MINUTES=2
MINUTES ?= 15
soak: demo/all.ahl tools
	$(BIN)/python -m benchmarks.soak --bundle demo/all.ahl --minutes $(MINUTES) --page docs/results/reliability.md

demo/all.ahl: | $(READY)
	test -e demo/run/model.pt || $(BIN)/ahl demo --out demo
	$(BIN)/ahl export demo/run --out $@ --openvino --int8

test: lint tools
	AHL_SCREENSHOTS=$(CURDIR)/build/screenshots $(BIN)/pytest

# The tests of the device side alone, in an environment without torch: make test-device PYTHON=python3.13
DEVICE := $(VENV)-device
test-device: $(DEVICE)/.ready tools
	$(DEVICE)/bin/pytest tests/ahl_runtime tests/calibration

$(DEVICE)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DEVICE)
	$(DEVICE)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

# What tests need beyond Python, from Debian: a browser, curl, certificates, a broker, a clock that jumps, a GigE Vision
# camera, an RTSP server. COMMAND, or COMMAND:PACKAGE if the package has another name.
TOOLS := arv-fake-gv-camera-0.8:aravis-tools chromium curl faketime mosquitto openssl rtsp-server-perl
tools:
	@missing="$$(for tool in $(TOOLS); do command -v $${tool%%:*} > /dev/null || echo $${tool##*:}; done)"; \
	test -z "$$missing" || { root="$$(command -v sudo || true)"; \
	$$root apt-get update -qq && $$root apt-get install -qq -y --no-install-recommends $$missing; } || \
	{ echo "the tests need: $$missing" >&2; exit 2; }

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

install: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "ahl needs Python 3.11 to 3.13; choose one with: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) $(DEVICE) demo build *.egg-info
