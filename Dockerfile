# VARIANT: all, redis, kafka, sqs, azure, gcp, mqtt, rabbitmq or minimal (the embedded file, and http endpoints alone).
# The packages of each, with their hashes, are in deploy/image; scripts/lock.sh writes them.
FROM python:3.12-slim AS build
ARG VARIANT=all
WORKDIR /src
# pip stays here, and the tests of the packages: a third of what the smallest image would be.
RUN python -m venv /opt/pip && python -m venv --without-pip /opt/openhqm
COPY deploy/image/${VARIANT}.txt requirements.txt
RUN /opt/pip/bin/pip --python /opt/openhqm/bin/python install --no-cache-dir --disable-pip-version-check \
        --require-hashes -r requirements.txt \
    && find /opt/openhqm -depth -type d \( -name test -o -name tests \) -exec rm -r {} +
COPY . .
# The plugin cache is written here: the user of the image below cannot write it.
RUN /opt/pip/bin/pip --python /opt/openhqm/bin/python install --no-cache-dir --disable-pip-version-check --no-deps . \
    && /opt/openhqm/bin/twistd --help > /dev/null

FROM python:3.12-slim
ARG VARIANT=all
LABEL org.opencontainers.image.title="OpenHQM" \
      org.opencontainers.image.description="A durable queue between HTTP callers and the code that answers them" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="0.1.0-${VARIANT}"
RUN install --directory --owner=10001 --group=10001 --mode=0700 /data && install --directory /app
COPY --from=build /opt/openhqm /opt/openhqm
COPY --chmod=0755 deploy/image/healthcheck /usr/local/bin/openhqm-healthcheck

# Inside a container loopback reaches nobody, so it listens everywhere. Who may call is for the operator to say: without
# OPENHQM_AUTH__TYPE it does not start. The admin listener is for the health check, in every role.
ENV PATH=/opt/openhqm/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    IMAGE_VARIANT=${VARIANT} \
    OPENHQM_SERVER__HOST=0.0.0.0 \
    OPENHQM_SERVER__PORT=8000 \
    OPENHQM_ADMIN__PORT=8001 \
    OPENHQM_QUEUE__CONNECTION__SQLITE='{"path": "/data"}'

USER 10001:10001
# Handlers are imported from here.
WORKDIR /app
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["openhqm-healthcheck"]
ENTRYPOINT ["twistd", "-n", "--pidfile=", "openhqm"]
