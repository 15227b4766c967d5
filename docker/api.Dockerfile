# The API, migrations and the sweep: no torch, no shell needed, no root.
FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/venv
COPY docker/api.lock /tmp/api.lock
RUN /opt/venv/bin/pip install --no-deps --require-hashes -r /tmp/api.lock
COPY pyproject.toml README.md /srv/spear/
COPY app /srv/spear/app
COPY migrations /srv/spear/migrations
RUN /opt/venv/bin/pip install --no-deps --editable /srv/spear

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="spear-merge api" org.opencontainers.image.licenses="Apache-2.0"
# a number, so that an orchestrator can see that it is not root
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin spear \
    && install -d -o 10001 -g 10001 /data
COPY --from=build /opt/venv /opt/venv
COPY --from=build /srv/spear /srv/spear
# The root file system may be read-only: nothing is written but to /data and /tmp.
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 SPEAR_DATA_DIR=/data
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
STOPSIGNAL SIGTERM
CMD ["spear", "api", "--host", "0.0.0.0", "--port", "8000"]
