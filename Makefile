# make test, make demo and the rest set up what they need and take seconds the second time.
# .venv       core and test tools, what the quick tests and the demo run in
# .venv-full  all extras
# .venv-tia   tiatoolbox, whose upper bounds suit no other environment (on demand)
# .venv-wheel the built wheel and nothing else
# .venv-oldest the oldest versions that pyproject.toml allows (on demand)
PYTHON ?= python3
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt
SOURCES = $(shell find pathencoder -type f -not -name '*.pyc')
FULL = dev,wsi,fastslide,remote,tiff,nuclei,heads,training,full-tests,docs

.PHONY: setup check docs test test-quick test-full test-oldest test-wheel demo clean
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

# tiatoolbox forbids torch 2.13 in its metadata and runs on it: only uv can override that.
.venv-tia/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-tia
	.venv-tia/bin/python -m pip install --quiet uv
	links=$$(.venv-tia/bin/python -m pip config get global.find-links 2>/dev/null || true); \
	.venv-tia/bin/uv pip install --quiet --python .venv-tia/bin/python $${links:+--find-links $$links} \
		--override constraints.txt tiatoolbox==2.1.3 pytest --editable .
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

test-quick: .venv/.done
	.venv/bin/python -m pytest -m 'not full'

test-full: .venv-full/.done
	.venv-full/bin/python -m pytest -m full

# The quick tests with the oldest versions that pyproject.toml allows, on demand. torch comes from
# PyTorch's CPU index. Without access to it, OLDEST_TORCH='--override FILE' takes the torch that FILE
# names (torch==2.13.0+cpu, torchvision==0.28.0) from pip's find-links, and the oldest of the rest.
OLDEST_TORCH ?= --torch-backend cpu

test-oldest: .venv-oldest/.done
	.venv-oldest/bin/python -m pytest -m 'not full'

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

.venv-wheel/.done: pyproject.toml constraints.txt $(SOURCES) .venv/.done
	rm -rf dist && .venv/bin/python -m build --wheel --outdir dist . > /dev/null
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python $(PIP_INSTALL) --force-reinstall --no-deps dist/*.whl
	.venv-wheel/bin/python $(PIP_INSTALL) dist/*.whl
	touch $@

demo: .venv/.done
	.venv/bin/pathencoder demo

clean:
	rm -rf .venv .venv-full .venv-tia .venv-oldest .venv-wheel build dist site .cache *.egg-info
