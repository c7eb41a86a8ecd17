# make test, make demo and the rest set up what they need and take seconds the second time.
# .venv       core and test tools, what the quick tests and the demo run in
# .venv-full  all extras but tiatoolbox and ray
# .venv-tia   tiatoolbox, whose upper bounds suit no other environment (on demand)
# .venv-wheel the built wheel and nothing else
PYTHON ?= python3
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt
SOURCES = $(shell find pathencoder -type f -not -name '*.pyc')
FULL = dev,wsi,nuclei,heads,demo,training,full-tests

.PHONY: setup check test test-quick test-full test-wheel demo clean
.DELETE_ON_ERROR:

setup: .venv/.done

.venv/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python $(PIP_INSTALL) --editable '.[dev,demo]'
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

check: .venv/.done
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

test: check test-quick test-full test-wheel

test-quick: .venv/.done
	.venv/bin/python -m pytest -m 'not full'

test-full: .venv-full/.done
	.venv-full/bin/python -m pytest -m full

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
	rm -rf .venv .venv-full .venv-tia .venv-wheel build dist *.egg-info
