# syntax=docker/dockerfile:1
# Three images: gateway (no torch), worker-cpu, worker-cuda. Dependencies are built in one stage and copied into another, so
# that no image carries pip's cache or a compiler; sources come last, so that a change of code rebuilds one small layer.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /build
# Without the packages beside it, pyproject.toml installs as a name, a version and its dependencies. The version is in one
# file, which alone is no package.
COPY pyproject.toml constraints.txt LICENSE ./
COPY contract/release.py contract/release.py

FROM build AS build-gateway
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install -c constraints.txt '.[gateway]'

# TORCH_INDEX_URL: an index that holds CPU builds of torch. The default build brings CUDA's libraries, some gigabytes, along.
FROM build AS build-worker-cpu
ARG TORCH_INDEX_URL=
# hadolint ignore=DL3013
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} "$(grep ^torch== constraints.txt)" \
    && pip install -c constraints.txt '.[worker]'
# The fused kernels of the CPU engine. The compiler stays in this stage.
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /srv/facsimile
COPY contract contract
COPY quant quant
RUN python -m quant.engine.native.compilation

FROM build AS build-worker-cuda
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install "$(grep ^torch== constraints.txt)" \
    && pip install -c constraints.txt '.[worker,cuda]'

FROM ${PYTHON_IMAGE} AS runtime
RUN groupadd --gid 10001 facsimile \
    && useradd --uid 10001 --gid facsimile --no-create-home --home-dir /tmp --shell /usr/sbin/nologin facsimile \
    && install --directory --owner=facsimile --group=facsimile /var/lib/facsimile
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPATH=/srv/facsimile \
    FACSIMILE_DATA_DIR=/var/lib/facsimile
WORKDIR /srv/facsimile
VOLUME /var/lib/facsimile

FROM runtime AS gateway
COPY --from=build-gateway /opt/venv /opt/venv
COPY contract contract
COPY app app
# The cards of the shipped variants; the weights beside them are for the workers.
COPY models/variants models/variants
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
CMD ["python", "-m", "app", "gateway"]

FROM runtime AS worker
COPY contract contract
COPY quant quant
COPY facsimile facsimile
COPY worker worker
COPY prompts prompts
COPY recipes recipes
COPY models models
# The file system is read-only at run time: what is compiled or downloaded goes to a temporary folder or to the data.
ENV MPLCONFIGDIR=/tmp/matplotlib \
    HF_HOME=/var/lib/facsimile/hub
USER 10001:10001
EXPOSE 9100
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9100/metrics', timeout=4)"]
CMD ["python", "-m", "worker", "--queues", "generate", "--metrics-port", "9100"]

FROM worker AS worker-cuda
COPY --from=build-worker-cuda /opt/venv /opt/venv
ENV FACSIMILE_DEVICE=cuda \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM worker AS worker-cpu
COPY --from=build-worker-cpu /opt/venv /opt/venv
COPY --from=build-worker-cpu /srv/facsimile/quant/engine/native/build quant/engine/native/build
ENV FACSIMILE_DEVICE=cpu
