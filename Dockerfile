# The search service on the CPU. It runs as an unprivileged user and works on a read-only root
# file system.
#
#   docker build -t gpq .
#
# TORCH_INDEX_URL: the package index that torch is installed from. PyTorch's index of CPU wheels
#   makes a small image. Without this argument pip's default index is used: its torch for x86-64
#   includes 5 GB of CUDA libraries. It runs on the CPU too, and the gpu profile needs it.
# PACKAGES: additional Debian packages. On a CUDA device Triton needs a C compiler.

FROM python:3.11-slim-bookworm AS build
ARG TORCH=torch
ARG TORCH_INDEX_URL=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# Compiles the scan and the network; the final image needs no compiler.
RUN apt-get update -q && apt-get install -qy --no-install-recommends g++
RUN python -m venv /venv
# The largest layer comes first, because it changes only with torch.
RUN ${TORCH_INDEX_URL:+env PIP_INDEX_URL="$TORCH_INDEX_URL"} /venv/bin/pip install "$TORCH"
WORKDIR /app
COPY pyproject.toml setup.py constraints.txt README.md LICENSE ./
COPY gpq gpq
COPY service service
COPY trainer trainer
COPY migrations migrations
# torch and its dependencies are not pinned here, because its CPU and CUDA builds differ in them.
RUN grep -viE '^(torch|torchvision|triton|nvidia|cuda)' constraints.txt > /tmp/constraints.txt \
 && /venv/bin/pip install -c /tmp/constraints.txt -e .[heic,s3] \
 && /venv/bin/python -m compileall -q /app /venv/lib/python3.11/site-packages/sqlalchemy

FROM python:3.11-slim-bookworm
ARG PACKAGES=
RUN test -z "$PACKAGES" || { apt-get update -q \
 && apt-get install -qy --no-install-recommends $PACKAGES && rm -rf /var/lib/apt/lists/*; }
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin gpq \
 && install -d -o gpq -g gpq /data
COPY --from=build /venv /venv
COPY --from=build /app /app
COPY models /app/models
COPY examples /app/examples
WORKDIR /data
USER gpq
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp \
    GPQ_HOST=0.0.0.0 GPQ_PORT=8000
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --start-interval=1s --retries=3 \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["python", "-m", "service"]
