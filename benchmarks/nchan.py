"""Nchan, the module of nginx for streams, measured by the clients that measure ours.

    apt-get install -y nginx-light libnginx-mod-nchan
    python -m benchmarks.nchan [STREAMS [SECONDS]]

What is told carries the time at which it is published, where an ending of ours carries the time at which its handler
has answered. Nchan keeps its messages in memory, and there is nothing to be worked on, stored or ended.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import running
from benchmarks.open_model import percentile
from benchmarks.streams import RATE, SUBSCRIBERS, Streams, post, spread, to_all
from benchmarks.table import Table

MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
CONFIGURATION = """
load_module {module};
worker_processes 1;
worker_rlimit_nofile {files};
pid {directory}/nginx.pid;
error_log {directory}/error.log;
daemon off;
events {{ worker_connections {files}; }}
http {{
  access_log off;
  keepalive_requests 100000000;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location ~ ^/sub/(\\w+)$ {{ nchan_subscriber eventsource; nchan_channel_id $1; }}
    location ~ ^/pub/(\\w+)$ {{ nchan_publisher http; nchan_channel_id $1; }}
  }}
}}
"""


def _subscribe(channel: str) -> bytes:
    return b"GET /sub/%b HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n" % channel.encode()


def _publish(channel: str) -> bytes:
    return post(f"/pub/{channel}", f'{{"completed_at":"{datetime.now(UTC).isoformat()}"}}')


NCHAN = Streams(_subscribe, _publish, b": hi", (b"201", b"202"))


def is_installed() -> bool:
    """Whether nginx and the module are there."""
    return MODULE.exists() and shutil.which("nginx") is not None


@contextmanager
def server(port: int) -> Iterator[int]:
    """An nginx with Nchan; the id of the process that serves."""
    with tempfile.TemporaryDirectory(prefix="openhqm-bench-", dir="/var/tmp") as directory:
        Path(directory).chmod(0o755)
        path = Path(directory, "nginx.conf")
        path.write_text(CONFIGURATION.format(module=MODULE, directory=directory, port=port, files=running.most_files()))
        with running.process(["nginx", "-c", str(path)], port) as master:
            children = Path(f"/proc/{master.pid}/task/{master.pid}/children").read_text().split()
            yield int(children[0])


def nchan(table: Table, seconds: float, count: int) -> None:
    """The figures of `benchmarks.streams` for Nchan; a line says where it is not installed."""
    if not is_installed():
        print("nchan is left out: apt-get install nginx-light libnginx-mod-nchan", file=sys.stderr)
        return
    running.allow_many_files()
    port = running.free_port()
    with server(port) as pid:
        size, told, spent = asyncio.run(spread(NCHAN, port, pid, count, seconds))
        table.add(f"Nchan: one of {count:,} idle streams", size, "KiB")
        for share in (0.5, 0.99):
            name = f"Nchan: {RATE:,} messages/s over {count:,} streams, p{share * 100:g}"
            table.add(name, percentile(told, share), "ms")
        table.add("Nchan: CPU of such a message", spent, "us")
        found = asyncio.run(to_all(NCHAN, port, 20))
        table.add(f"Nchan: one message to the last of {SUBSCRIBERS:,}, median", found[len(found) // 2] * 1000, "ms")
        table.add(f"Nchan: one message to the last of {SUBSCRIBERS:,}, longest", found[-1] * 1000, "ms")


if __name__ == "__main__":
    nchan(Table(), float(sys.argv[2]) if len(sys.argv) > 2 else 10, int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
