# make test, make demo and the rest set up what they need and take seconds the second time.
# .venv       core and test tools, what the quick tests and the demo run in
# .venv-full  all extras
# .venvs      the tools of others, each in an environment of its own (on demand)
# .venv-wheel the built wheel and nothing else; .venv-wheel-oldest with the oldest versions (on demand)
# .venv-oldest the oldest versions that pyproject.toml allows (on demand)
PYTHON ?= python3
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
SOURCES = $(shell find pathencoder -type f -not -name '*.pyc')
FULL = dev,wsi,fastslide,remote,archive,ray,tiff,zarr,nuclei,heads,lora,onnx,openvino,export,training,full-tests,docs

.PHONY: setup check docs test test-quick test-full test-cards test-oldest test-wheel test-wheel-oldest test-peers \
	release-check demo clean
.PRECIOUS: .venvs/%/.done
.DELETE_ON_ERROR:

setup: .venv/.done

.venv/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python $(PIP_INSTALL) --editable '.[dev,nuclei]'
	touch $@

.venv-full/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-full
	.venv-full/bin/python $(PIP_INSTALL) --editable '.[$(FULL)]'
	touch $@

# The types of training/ need its libraries.
check: .venv/.done .venv-full/.done
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv-full/bin/mypy

# The documentation site, in site/; a warning is an error.
docs: .venv-full/.done
	PYTHONPATH=. .venv-full/bin/python scripts/docs_cli.py docs/cli.md
	PYTHONPATH=. .venv-full/bin/python scripts/docs_settings.py docs/pretraining-settings.md
	PYTHONPATH=. .venv-full/bin/zensical build --clean --strict

test: check test-quick test-full docs test-wheel

# Several test files at a time; the tests of a file stay together, since they share servers and data.
PYTEST = -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

test-quick: .venv/.done
	.venv/bin/python $(PYTEST) -m 'not full'

test-full: .venv-full/.done
	.venv-full/bin/python $(PYTEST) -m full

# Every figure of the bundled cards again, on demand: ten minutes an encoder on two cores.
test-cards: .venv-full/.done
	PATHENCODER_CARDS=all .venv-full/bin/python -m pytest -m full \
		tests/unit/training/publishing/test_recomputed.py

# The quick tests with the oldest versions that pyproject.toml allows, on demand. torch comes from
# PyTorch's CPU index. Without access to it, OLDEST_TORCH='--override FILE' takes the torch that FILE
# names (torch==2.13.0+cpu, torchvision==0.28.0) from pip's find-links, and the oldest of the rest.
OLDEST_TORCH ?= --torch-backend cpu

test-oldest: .venv-oldest/.done
	.venv-oldest/bin/python $(PYTEST) -m 'not full'

.venv-oldest/.done: pyproject.toml
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check uv
	links=$$(.venv-oldest/bin/python -m pip config get global.find-links 2>/dev/null || true); \
	.venv-oldest/bin/uv pip install --quiet --python .venv-oldest/bin/python $${links:+--find-links $$links} \
		$(OLDEST_TORCH) --resolution lowest-direct --editable '.[dev,nuclei]'
	touch $@

# The wheel alone, in an environment without our extras or test tools.
test-wheel: .venv-wheel/.done
	cd .venv-wheel && bin/python -W error::DeprecationWarning:pathencoder ../tests/wheel/smoke.py

# The wheel is built from the sdist.
dist/.done: pyproject.toml constraints.txt README.md LICENSE $(SOURCES) .venv/.done
	rm -rf dist build && .venv/bin/python -m build --outdir dist . > /dev/null
	touch $@

.venv-wheel/.done: dist/.done
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python $(PIP_INSTALL) --force-reinstall --no-deps dist/*.whl
	.venv-wheel/bin/python $(PIP_INSTALL) dist/*.whl
	touch $@

# The wheel alone, with the oldest versions that it allows. What the wheel needs is given by itself:
# uv takes the oldest only of what is asked for directly.
test-wheel-oldest: .venv-wheel-oldest/.done
	cd .venv-wheel-oldest && bin/python -W error::DeprecationWarning:pathencoder ../tests/wheel/smoke.py

.venv-wheel-oldest/.done: dist/.done
	$(PYTHON) -m venv --clear .venv-wheel-oldest
	.venv-wheel-oldest/bin/python -m pip install --quiet --disable-pip-version-check uv
	links=$$(.venv-wheel-oldest/bin/python -m pip config get global.find-links 2>/dev/null || true); \
	.venv/bin/python scripts/release_check.py needs dist > .venv-wheel-oldest/needs.txt; \
	.venv-wheel-oldest/bin/uv pip install --quiet --python .venv-wheel-oldest/bin/python \
		$${links:+--find-links $$links} $(OLDEST_TORCH) --resolution lowest-direct \
		--requirement .venv-wheel-oldest/needs.txt
	.venv-wheel-oldest/bin/python $(PIP_INSTALL) --no-deps dist/*.whl
	touch $@

# Before a tag: what wheel and sdist hold, the wheel with the newest and the oldest versions, and the
# README's commands.
release-check: test-wheel test-wheel-oldest
	.venv/bin/python scripts/release_check.py files dist
	.venv/bin/python scripts/release_check.py readme .venv-wheel/bin

# Our encoders in the tools of others, on real slides (PATHENCODER_SLIDES, or ../shared/data/slides);
# on demand. Only uv can override what these tools' metadata forbid: torch 2.13, and for slide2vec
# huggingface-hub from 1.0, which its transformers refuse when they are imported.
PEERS = tiatoolbox lazyslide slide2vec torch_tools
tiatoolbox = tiatoolbox==2.1.3
lazyslide = lazyslide==0.13.0 wsidata==0.12.0 lazyslide-models==0.1.0 'pandas<3'
slide2vec = slide2vec==7.1.4
torch_tools = onnx==1.23.2 onnxruntime==1.32.0 onnxscript==0.7.2 grad-cam==1.5.7 captum==0.9.0 \
	scikit-learn==1.9.1 anndata==0.12.19 'pandas<3' torchmetrics==1.9.0 kaiko-eva==0.4.5

test-peers: $(PEERS:%=test-peers-%)

test-peers-%: .venvs/%/.done
	PYTHONPATH=tests/peers/startup .venvs/$*/bin/python -m pytest tests/peers/test_$*.py \
		-W default

.venvs/%/.done: constraints.txt tests/peers/overrides-slide2vec.txt
	$(PYTHON) -m venv .venvs/$*
	.venvs/$*/bin/python -m pip install --quiet --disable-pip-version-check uv
	links=$$(.venvs/$*/bin/python -m pip config get global.find-links 2>/dev/null || true); \
	.venvs/$*/bin/uv pip install --quiet --python .venvs/$*/bin/python $${links:+--find-links $$links} \
		--override constraints.txt $(if $(filter slide2vec,$*),--override tests/peers/overrides-slide2vec.txt) \
		$($*) pytest openslide-python openslide-bin --editable .
	touch $@

demo: .venv/.done
	.venv/bin/pathencoder demo

clean:
	rm -rf .venv .venvs .venv-full .venv-oldest .venv-wheel .venv-wheel-oldest build dist site .cache *.egg-info
