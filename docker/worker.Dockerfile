# A worker: torch on CUDA, no HTTP, no root. One container per GPU.
ARG CUDA=13.0.1-base-ubuntu24.04
FROM nvidia/cuda:${CUDA} AS base
# The distribution's Python carries its own security fixes; a pinned version of it would vanish from the archive.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/*

FROM base AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv /opt/venv
COPY docker/worker.lock /tmp/worker.lock
RUN /opt/venv/bin/pip install --no-deps --require-hashes -r /tmp/worker.lock
# torch with its CUDA libraries, after the lock, which then has its other dependencies already
ARG TORCH=torch==2.13.0
ARG TORCH_INDEX=https://download.pytorch.org/whl/cu130
RUN /opt/venv/bin/pip install --extra-index-url "${TORCH_INDEX}" "${TORCH}"
COPY pyproject.toml README.md /srv/spear/
COPY app /srv/spear/app
COPY worker /srv/spear/worker
COPY docker/worker_health.py /srv/spear/worker_health.py
RUN /opt/venv/bin/pip install --no-deps --editable /srv/spear

FROM base
LABEL org.opencontainers.image.title="spear-merge worker" org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin spear \
    && install -d -o 10001 -g 10001 /data
COPY --from=build /opt/venv /opt/venv
COPY --from=build /srv/spear /srv/spear
# The root file system may be read-only: nothing is written but to /data and /tmp.
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib OMP_NUM_THREADS=1 \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 SPEAR_DATA_DIR=/data
USER 10001:10001
WORKDIR /data
VOLUME /data
HEALTHCHECK --interval=30s --timeout=15s --start-period=60s --retries=3 \
    CMD ["python", "/srv/spear/worker_health.py"]
STOPSIGNAL SIGTERM
CMD ["spear", "worker"]
