# On a fresh checkout each target makes .venv and installs what it needs:
#   make dissect       dissects the network trained with Mixup
#   make study         dissects all five and compares them
#   make test          lint and the tests that take minutes; test-all: all of them
#   make test-processors  what compares floats, as on processors of other years
#   make accelerators  compiles every step for GPUs and TPUs, without one
#   make train-scenes  trains the shipped networks again, for hours; goes on if cut off
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SCENES := build/scenes
TRAINED := build/trained
# Two groups of tests at a time; tests/conftest.py says which share what they build.
PARALLEL := -n 2 --dist loadscope --no-loadscope-reorder
# What compares floats of two programs, or with figures from another machine.
FLOATS := tests/training/test_step.py tests/training/test_devices.py \
  tests/training/test_convolution.py tests/benchmarks/pytorch/test_training.py \
  tests/ablation/test_interventions.py tests/models/test_layers.py \
  tests/models/test_pyramid.py tests/augment tests/converters/test_parity.py \
  $(addprefix tests/ops/test_,iou.py resample.py saliency.py thresholds.py upsample.py \
  winograd.py winograd_gradient.py)
# The same with the most that XLA, oneDNN and PyTorch may use of a processor.
at_most = XLA_FLAGS="$$XLA_FLAGS --xla_cpu_max_isa=$(1)" ONEDNN_MAX_CPU_ISA=$(2) \
  ATEN_CPU_CAPABILITY=$(3) $(BIN)/python -m pytest -m 'not slow and not timing' \
  $(PARALLEL) $(FLOATS)
# Compilers of GPUs and TPUs. Where no GPU is, JAX would complain of its plugin at each
# start, so they have an environment of their own, with a JAX that may be another.
ACCELERATORS := .venv-accelerators
JAX ?= 0.10.2
for_accelerators = JAX_PLATFORMS=cpu $(ACCELERATORS)/bin/python
RECIPES := baseline cutout mixup cutmix saliencymix

.PHONY: install dissect study test test-all test-processors test-accelerators accelerators \
  lint types format train-scenes clean

install: $(VENV)/.installed

# Reinstalls only when the dependencies change. timm asks for torchvision, whose wheel
# needs the build of PyTorch that it was made for; the tests do without it.
$(VENV)/.installed: pyproject.toml setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable '.[test]'
	$(BIN)/pip install --quiet --no-deps 'timm==1.0.31'
	touch $@

$(ACCELERATORS)/.installed-$(JAX): pyproject.toml setup.py
	test -x $(ACCELERATORS)/bin/python || $(PYTHON) -m venv $(ACCELERATORS)
	$(ACCELERATORS)/bin/pip install --quiet --editable '.[test]' 'jax[tpu]==$(JAX)' \
	  jax-cuda12-plugin==$(JAX) jax-cuda12-pjrt==$(JAX) nvidia-cuda-nvcc-cu12
	touch $@

dissect: install
	$(BIN)/python -m jdissect.main --config=configs/mixup.py

study: install
	$(BIN)/python -m jdissect.study

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-test
	$(BIN)/mypy

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: lint
	$(BIN)/python -m pytest -m 'not slow and not timing' $(PARALLEL)

test-all: test types
	$(BIN)/python -m pytest $(PARALLEL) -m 'slow and not timing'
	$(BIN)/python -m pytest -m timing

test-processors: $(VENV)/.installed-test
	$(call at_most,AVX2,AVX2,avx2)
	$(call at_most,SSE4_2,SSE41,default)

# The counting kernels, compiled for one GPU and one TPU.
test-accelerators: $(ACCELERATORS)/.installed-$(JAX)
	$(for_accelerators) -m pytest tests/benchmarks/test_accelerators.py

accelerators: $(ACCELERATORS)/.installed-$(JAX)
	$(for_accelerators) -m benchmarks.accelerators --save

# Two devices, whatever the machine has: the layout that the shipped weights come from.
train-scenes: export XLA_FLAGS = --xla_force_host_platform_device_count=2
train-scenes: install
	for split in train validation; do \
	  $(BIN)/python -m jdissect.scenes --prepare $(SCENES) --split $$split || exit; \
	done
	for name in $(RECIPES); do \
	  $(BIN)/python -m jdissect.train --config=configs/$$name.py \
	    --config.data.path=$(SCENES) --workdir=$(TRAINED)/$$name || exit; \
	done
	$(BIN)/python -m jdissect.train_segmenter --config=configs/segmenter.py \
	  --config.data.path=$(SCENES) --workdir=$(TRAINED)/upernet
	for name in $(RECIPES) upernet; do \
	  $(BIN)/python -m jdissect.training.ship_weights --run=$(TRAINED)/$$name --name=$$name || exit; \
	done

clean:
	rm -rf $(VENV) $(ACCELERATORS) build *.egg-info .pytest_cache .ruff_cache
