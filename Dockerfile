# chainrule's image: a build stage, then a final stage that holds Python, the locked packages and nothing else.
#
#   docker build -t chainrule .                                               the model comes at the first start
#   docker build -t chainrule --build-arg BAKE_MODEL=smollm2-135m-instruct .  the model is in the image
#   docker build -t chainrule --build-arg TORCH_INDEX=URL .                   torch from one more package index
#   docker build -t chainrule --build-arg KERNELS=torch .                     without the compiled kernels
#
# KERNELS=native compiles the kernels in the build stage, with the C compiler of BASE or, where it has none, with
# Debian's; a BASE without either fails, and KERNELS=torch does without. No compiler comes into the final stage.
#
# BASE is any glibc image with Python 3.11 or 3.12, its venv module and CA certificates. Both stages take the
# same one: that keeps the virtual environment valid after the copy.
#
# TORCH_INDEX is asked besides the usual index, whose torch wheel for Linux on x86-64 brings several GB of CUDA
# libraries: an index of CPU-only wheels makes a far smaller image.
#
# PIP_INDEX_URL and PIP_EXTRA_INDEX_URL are build arguments too. Whatever else pip must know, or nobody should
# read in the image's history, goes in as a secret:
#   --secret id=pip-conf,src=$HOME/.config/pip/pip.conf --secret id=ca-bundle,src=ca.pem
# (such a pip.conf says `cert = /run/secrets/ca-bundle`).

ARG BASE=python:3.11.14-slim-bookworm

FROM ${BASE} AS build

ARG PIP_INDEX_URL=
ARG PIP_EXTRA_INDEX_URL=
ARG TORCH_INDEX=
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    CHAINRULE_CACHE_DIR=/var/cache/chainrule

RUN useradd --uid 10001 --user-group --no-create-home --home-dir "${CHAINRULE_CACHE_DIR}" --shell /usr/sbin/nologin chainrule \
    && install --directory --owner=10001 --group=10001 "${CHAINRULE_CACHE_DIR}"

WORKDIR /src

# The packages weigh nearly everything and change seldom: they get a layer of their own, without the program.
# Of torch, the C++ headers and test programs stay behind: nothing is compiled in the final stage.
COPY pyproject.toml constraints.txt ./
RUN --mount=type=secret,id=pip-conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca-bundle,target=/run/secrets/ca-bundle \
    python3 -m venv /opt/chainrule \
    && /opt/chainrule/bin/python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; print(*p["dependencies"], *p["optional-dependencies"]["grammar"], sep="\n")' > requirements.txt \
    && /opt/chainrule/bin/python -m pip install --constraint constraints.txt pip setuptools \
    && /opt/chainrule/bin/python -m pip install --constraint constraints.txt --requirement requirements.txt \
        ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} \
    && rm -rf /opt/chainrule/lib/python3.*/site-packages/torch/include /opt/chainrule/lib/python3.*/site-packages/torch/test \
    && find /opt/chainrule/lib/python3.*/site-packages/torch/bin -type f ! -name torch_shm_manager -delete

ARG KERNELS=native
# hadolint ignore=DL3008
RUN case "${KERNELS}" in \
        native) ;; \
        torch) exit 0 ;; \
        *) echo "KERNELS must be native or torch, is ${KERNELS}" >&2; exit 1 ;; \
    esac \
    && echo '#include <pthread.h>' > headers.c \
    && if ! $(/opt/chainrule/bin/python -c 'import sysconfig; print(sysconfig.get_config_var("CC"))') -fsyntax-only headers.c; then \
        if ! command -v apt-get >/dev/null; then \
            echo "no C compiler and no apt-get in the base image: take another BASE, or KERNELS=torch" >&2; exit 1; \
        fi; \
        apt-get update \
        && apt-get install --yes --no-install-recommends gcc libc6-dev \
        && rm -rf /var/lib/apt/lists/*; \
    fi

COPY README.md LICENSE ./
COPY app app
COPY model_runtime model_runtime
RUN if [ "${KERNELS}" = torch ]; then export CC=false; fi \
    && /opt/chainrule/bin/python -m pip install --no-index --no-deps --no-build-isolation --prefix /opt/program . \
    && if [ "${KERNELS}" = native ] && ! ls /opt/program/lib/python3.*/site-packages/model_runtime/native/_kernels*.so; then \
        echo "the kernels could not be compiled: take another BASE, or KERNELS=torch" >&2; exit 1; \
    fi

ARG BAKE_MODEL=
RUN --mount=type=secret,id=pip-conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca-bundle,target=/run/secrets/ca-bundle \
    if [ -n "${BAKE_MODEL}" ]; then \
        PYTHONPATH="$(echo /opt/program/lib/python3.*/site-packages)" /opt/program/bin/chainrule model fetch "${BAKE_MODEL}" \
        && chown -R 10001:10001 "${CHAINRULE_CACHE_DIR}"; \
    fi


FROM ${BASE}

ARG VERSION=unreleased
LABEL org.opencontainers.image.title="chainrule" \
      org.opencontainers.image.description="The scoring server for causal language models: exact sequence log-probabilities over HTTP" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"

COPY --from=build /etc/passwd /etc/group /etc/
COPY --from=build /opt/chainrule /opt/chainrule
COPY --from=build --chown=10001:10001 /var/cache/chainrule /var/cache/chainrule
COPY --from=build /opt/program /opt/chainrule

# Off loopback the server starts only with an API key (CHAINRULE_API_KEY_FILE or CHAINRULE_API_KEYS).
# The root file system may be read-only: only the cache folder is written, and only while a model is fetched.
ENV PATH=/opt/chainrule/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    CHAINRULE_HOST=0.0.0.0 \
    CHAINRULE_PORT=8000 \
    CHAINRULE_CACHE_DIR=/var/cache/chainrule \
    HF_HOME=/var/cache/chainrule/huggingface \
    PIP_NO_CACHE_DIR=1

USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM

HEALTHCHECK --interval=10s --timeout=5s --start-period=180s --retries=3 \
    CMD ["python", "-I", "-S", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['CHAINRULE_PORT']), timeout=4); c.request('GET', '/health/ready'); sys.exit(c.getresponse().status != 200)"]

ENTRYPOINT ["chainrule"]
CMD ["serve"]
