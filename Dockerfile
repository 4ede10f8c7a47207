# syntax=docker/dockerfile:1
#
# What pins what: the base image's tag pins Python 3.12, torch and CUDA; requirements.lock pins every
# Python package, torch at the same version; requirements-image.lock those of the extras `ray` and
# `quantised`, which the image carries; apt packages are those of the base's Ubuntu release.
# CUDA 13.0 needs a driver from branch 580 on. For older ones:
#   docker compose build --build-arg BASE=pytorch/pytorch:2.13.0-cuda12.6-cudnn9-runtime
ARG BASE=pytorch/pytorch:2.13.0-cuda13.0-cudnn9-runtime
FROM ${BASE}

# The base's Python belongs to Ubuntu, which refuses to have packages installed into it.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*

# The user's number is that of the first user of most machines, so that bind mounts can be written.
ARG UID=1000
RUN if id ubuntu > /dev/null 2>&1; then userdel --remove ubuntu; fi \
    && useradd --create-home --uid "${UID}" zbench \
    && install --directory --owner zbench --group zbench /zbench /zbench/runs /zbench/reports /cache

ENV PATH=/opt/venv/bin:${PATH} \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/cache/huggingface

# The virtual environment sees the base's torch, which is 2.13.0 too: it is not fetched again, and the
# build stops where it would be.
WORKDIR /opt/zbench
COPY requirements.lock requirements-image.lock ./
RUN python3 -m venv --system-site-packages /opt/venv \
    && pip install --no-cache-dir --requirement requirements.lock \
        --requirement requirements-image.lock \
    && python -c 'import sys, torch; sys.exit(torch.__file__.startswith(sys.prefix))'

COPY pyproject.toml README.md LICENSE NOTICE ./
COPY harness harness
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

# A number, which a cluster can tell from root.
USER ${UID}
WORKDIR /zbench
VOLUME ["/zbench/runs", "/zbench/reports", "/cache"]
ENTRYPOINT ["zbench"]
CMD ["--help"]
