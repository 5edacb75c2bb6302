# The search service. It runs as an unprivileged user and works on a read-only root file system.
#
#   docker build -t gpq .
#
# EXTRAS: extras of the package that are installed. With cuda the image uses NVIDIA GPUs and is
#   some GB larger.
# PACKAGES: additional Debian packages. On a CUDA device Triton needs a C compiler.

FROM python:3.11-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# Compiles the scan; the final image needs no compiler.
RUN apt-get update -q && apt-get install -qy --no-install-recommends g++
RUN python -m venv --without-pip /venv
WORKDIR /app
# The largest layer comes first, because it does not change with the code.
ARG EXTRAS=copies,heic,s3,tracing
COPY docker/requirements.py /tmp/
COPY pyproject.toml constraints.txt ./
# The files that are deleted again serve Intel's GPUs and NPUs, models of other programs, programs in
# C, and tests of ONNX.
RUN python /tmp/requirements.py "$EXTRAS" > /tmp/requirements.txt \
 && python -m pip --python /venv/bin/python install -c constraints.txt -r /tmp/requirements.txt \
 && cd /venv/lib/python3.11/site-packages \
 && rm -rf openvino/libs/*_gpu_plugin.so openvino/libs/*_npu_plugin.so openvino/libs/cache.json \
      openvino/libs/*_tensorflow*_frontend.so* openvino/libs/*_pytorch_frontend.so* \
      openvino/libs/*_paddle_frontend.so* openvino/libs/*_gguf_frontend.so* \
      openvino/libs/*_jax_frontend.so* \
      openvino/include onnxruntime/capi/libonnxruntime.so* onnx/backend
COPY setup.py README.md LICENSE ./
COPY gpq gpq
COPY service service
COPY trainer trainer
COPY migrations migrations
RUN mkdir examples models \
 && python -m pip --python /venv/bin/python install --no-deps -e . \
 && python -m compileall -q .
# The list of all Python packages of the image (CycloneDX).
RUN python -m pip install -c constraints.txt cyclonedx-bom \
 && python -m cyclonedx_py environment --pyproject pyproject.toml --output-format JSON \
      --output-file /app/sbom.json /venv/bin/python

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
