# The worker, the web part and the command line in one image; docker-compose.yml says which container is which.

FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY dramatiq_diag dramatiq_diag
COPY migrations migrations
RUN python -m venv /opt/dramatiq_diag \
    && /opt/dramatiq_diag/bin/pip install --no-cache-dir --constraint constraints.txt --upgrade pip \
    && /opt/dramatiq_diag/bin/pip install --no-cache-dir --constraint constraints.txt \
        --build-constraint constraints.txt '.[all]' 'dramatiq[rabbitmq,redis]'

FROM python:3.13-slim
COPY --from=build /opt/dramatiq_diag /opt/dramatiq_diag
ENV PATH=/opt/dramatiq_diag/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    DRAMATIQ_DIAG_DATA_DIR=/var/lib/dramatiq_diag
# By number, as Kubernetes cannot verify that a name is not root. A fresh volume takes over the owner of the directory that it covers.
RUN useradd --system --uid 10001 --home-dir /var/lib/dramatiq_diag diag \
    && install -d -m 0700 -o diag /var/lib/dramatiq_diag /var/lib/dramatiq_diag/blobs /var/lib/dramatiq_diag/spool
USER 10001
WORKDIR /var/lib/dramatiq_diag
EXPOSE 8321
ENTRYPOINT []
CMD ["dramatiq-diag", "--help"]
