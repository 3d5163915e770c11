FROM python:3.12-slim AS build
WORKDIR /src
COPY . .
# The plugin cache is written here: the user of the image below cannot write it.
RUN python -m venv /opt/openhqm \
    && /opt/openhqm/bin/pip install --no-cache-dir '.[tls,routing,redis,rabbitmq,mqtt,kafka,sqs]' \
    && /opt/openhqm/bin/twistd --help > /dev/null

FROM python:3.12-slim
RUN useradd --system --uid 10001 --no-create-home openhqm \
    && install --directory --owner=openhqm --mode=0700 /data \
    && install --directory /app
COPY --from=build /opt/openhqm /opt/openhqm

# Inside a container loopback reaches nobody, so it listens everywhere, and says that this is meant: whoever can
# reach the port may call. Publish it to a network you trust.
ENV OPENHQM_SERVER__HOST=0.0.0.0 \
    OPENHQM_SERVER__PORT=8000 \
    OPENHQM_AUTH__TYPE=none \
    OPENHQM_QUEUE__CONNECTION__SQLITE='{"path": "/data"}'

USER openhqm
# Handlers are imported from here.
WORKDIR /app
VOLUME /data
EXPOSE 8000
# In front of an application the path lies below /_openhqm. Another server.prefix needs another check.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s \
    CMD ["/opt/openhqm/bin/python", "-c", "import http.client, sys\nfor prefix in ('/_openhqm', ''):\n    server = http.client.HTTPConnection('127.0.0.1', 8000, timeout=4)\n    server.request('GET', prefix + '/health/ready')\n    status = server.getresponse().status\n    if status != 404:\n        break\nsys.exit(status != 200)"]
CMD ["/opt/openhqm/bin/twistd", "-n", "openhqm"]
