"""Writes docs/configuration-keys.md and docs/problems.md, out of the code: ``python docs/site/reference.py``.

``tests/test_reference.py`` fails where the pages are not what this would write, or no page explains a key.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from openhqm.backends import PRODUCTS
from openhqm.config.json_schema import json_schema
from openhqm.config.records import settings_record
from openhqm.http1.messages import REASONS
from openhqm.ingress.answers import STATUS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
EXPLAINED = {
    "server": "configuration.md#server",
    "server.tls": "tls.md",
    "queue": "configuration.md#queue",
    "queue.connection.redis": "redis.md",
    "queue.connection.rabbitmq": "rabbitmq.md",
    "queue.connection.mqtt": "mqtt.md",
    "queue.connection.kafka": "kafka.md",
    "queue.connection.azure_eventhubs": "event-hubs.md",
    "queue.connection.gcp_pubsub": "pubsub.md",
    "queue.connection.sqs": "sqs.md",
    "queue.connection.custom": "writing-a-backend.md",
    "brokers": "bridges.md",
    "brokers.NAME.security": "kafka.md",
    "bridges": "bridges.md",
    "proxy": "PROXY_MODE.md",
    "proxy.endpoints.NAME.publish": "bridges.md",
    "proxy.sidecar": "sidecar.md",
    "tenants": "tenants.md",
    "routing": "routing.md",
    "hooks": "webhooks.md",
    "auth": "configuration.md#auth",
    "auth.jwt": "tokens.md",
    "auth.mtls": "tls.md#client-certificates",
    "admin": "operations.md#the-admin-listener",
    "admin.tls": "tls.md",
    "callbacks": "callbacks.md",
}
"""The page about the keys below each prefix; the longest prefix counts. Of others it is that of the configuration."""
TO_DO = {
    400: "Repair the HTTP request: repeated as it is, it is refused again.",
    401: "Send a key or a token that is valid.",
    403: "Ask the operator for the role or the tenant that this needs.",
    404: "Nothing is there, or it is not for this caller: look at the path and the id.",
    405: "Use one of the methods in `Allow`.",
    408: "Send the request again, faster.",
    409: "Nothing is left to do: what the request would change has ended.",
    410: "Submit again where the reply is still wanted: it was kept until its published expiry.",
    413: "Send less: `largest_message` says how much, where the queue is the limit.",
    414: "Shorten the request target.",
    415: "Send JSON in UTF-8, without a `Content-Encoding`.",
    417: "Send no `Expect` but `100-continue`.",
    422: "Repair the member that `field` names; with a schema, each place of `errors`.",
    426: "Open a WebSocket there.",
    429: "Wait for the seconds of `Retry-After`.",
    431: "Send fewer or shorter header fields.",
    500: "Tell the operator the time and the `instance`: the log has the details.",
    501: "Ask the operator: this build, or this process, does not have it.",
    502: "The application or the endpoint behind the gateway answered wrongly; its operator has to look.",
    503: "Repeat it after `Retry-After`; a submission under the same `Idempotency-Key`.",
    504: "The application or the endpoint behind the gateway did not answer in time.",
    505: "Speak HTTP/1.1.",
}
MADE = "<!-- Made by docs/site/reference.py, out of the code. Change that, and run it. -->\n"
Json = Mapping[str, Any]


def keys(node: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    """Every key below a node of the JSON Schema, with what it takes. NAME stands for a name that is free."""
    for each in node.get("anyOf", ()):
        yield from keys(each, path)
    if node.get("type") == "array":
        yield from keys(node["items"], f"{path}[]")
    for name, found in node.get("properties", {}).items():
        if "const" in found or found.get("description", "").startswith("a file with "):
            continue
        key = f"{path}.{name}" if path else name
        yield key, found
        yield from keys(found, key)
    if isinstance(others := node.get("additionalProperties"), Mapping):
        yield from keys(others, f"{path}.NAME")


def values() -> dict[str, Json]:
    """Every key that takes a value, by its name."""
    found: dict[str, Json] = {}
    for key, node in keys(json_schema(settings_record(PRODUCTS))):
        if takes(node):
            found.setdefault(key, node)
    return found


def takes(node: Json) -> str:
    """What a value may be, in words; empty for a section with keys of its own."""
    if "anyOf" in node:
        found = [takes(each) for each in node["anyOf"] if each.get("pattern") != r"\$\{" and each.get("type") != "null"]
        return " or ".join(dict.fromkeys(each for each in found if each))
    kind = node.get("type")
    if kind == "object":
        if node.get("properties"):
            return ""
        inner = node.get("additionalProperties")
        if isinstance(inner, Mapping) and inner.get("properties"):
            return ""
        return f"names with {takes(inner)}" if isinstance(inner, Mapping) and takes(inner) else "names with values"
    if kind == "array":
        inner = takes(node["items"])
        return f"list: {inner}" if inner else ""
    if "enum" in node:
        return ", ".join(f"`{each}`" for each in node["enum"])
    limits = [node.get("minimum"), node.get("maximum")]
    if kind in ("integer", "number") and limits != [None, None]:
        low, high = (("" if each is None else f"{each:g}" if each < 10**6 else f"{each}") for each in limits)
        return f"{low} to {high}" if high else f"{low} or more"
    return {"integer": "a whole number", "number": "a number"}.get(str(kind), str(kind or "anything"))


def prefix_of(key: str) -> str:
    """The longest prefix of a key that has a page, or its section."""
    parts = key.replace("[]", "").split(".")
    found = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((each for each in found if each in EXPLAINED), parts[0])


def page_of(prefix: str) -> str:
    """The page, with its heading, that explains the keys below a prefix."""
    return EXPLAINED.get(prefix, f"configuration.md#{prefix}")


def configuration() -> str:
    """The page of all keys."""
    text = f"""{MADE}# All keys of the configuration

On this page you find every key, its default and what it takes. What a key means is on the page that its section names.
[Configuration](configuration.md) says how values are written and checked; `openhqm config schema` prints the same as
JSON Schema.

A string may also be read from a file: [`<key>_file`](configuration.md#how-a-value-is-written). `NAME` stands for a name
of yours, and `[]` for each entry of a list.
"""
    sections: dict[str, list[str]] = {}
    for key, node in values().items():
        default = json.dumps(node["default"]) if node.get("default") is not None else ""
        shown = f"`{default}`" if default else ""
        sections.setdefault(prefix_of(key), []).append(f"| `{key}` | {shown} | {takes(node)} |")
    for prefix, rows in sections.items():
        page = page_of(prefix)
        text += f"\n## `{prefix}`\n\nExplained in [{page.partition('#')[0]}]({page}).\n\n"
        text += "\n".join(("| key | default | takes |", "|---|---|---|", *rows)) + "\n"
    return text


def details() -> dict[int, list[str]]:
    """What problems say, by status: the texts in the code, in which ``...`` stands for what differs."""
    found: dict[int, list[str]] = {}
    for path in sorted((ROOT / "openhqm").glob("ingress/*.py")) + sorted((ROOT / "openhqm").glob("http1/*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        constants = {
            node.targets[0].id: _text(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or len(node.args) < 2 or not isinstance(node.func, ast.Name):
                continue
            status, said = node.args[:2]
            if node.func.id not in ("HTTPProblem", "Refusal", "problem") or not isinstance(status, ast.Constant):
                continue
            text = constants.get(said.id) if isinstance(said, ast.Name) else _text(said)
            if text and text not in found.setdefault(int(status.value), []):
                found[int(status.value)].append(text)
    return found


def _text(node: ast.expr) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(each.value) if isinstance(each, ast.Constant) else "..." for each in node.values)
    return None


def problems() -> str:
    """The page of all problems."""
    said = details()
    kinds: dict[int, list[type]] = {}
    for kind, status in STATUS:
        kinds.setdefault(status, []).append(kind)
    text = f"""{MADE}# Problems

On this page you find what each status code means that OpenHQM itself answers with, what to do, and the `detail` that it
comes with. [The HTTP API](http-api.md#problems) describes the members of a problem. `...` stands for what differs.
Endpoints and applications behind the gateway have answers of their own.
"""
    for status in sorted({*said, *kinds, 500}):
        text += f"\n## {status} {REASONS[status].decode()}\n\n{TO_DO[status]}\n"
        rows = [inspect.cleandoc(kind.__doc__ or "").partition("\n")[0] for kind in kinds.get(status, ())]
        lines = [f"- {row}".replace("``", "`") for row in rows] + [f"- `{each}`" for each in said.get(status, ())]
        text += "\n" + "\n".join(lines) + "\n" if lines else ""
    return text


PAGES = {"configuration-keys.md": configuration, "problems.md": problems}

if __name__ == "__main__":
    for name, make in PAGES.items():
        (DOCS / name).write_text(make(), encoding="utf-8")
