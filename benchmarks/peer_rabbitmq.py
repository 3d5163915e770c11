"""A program written by hand: FastAPI and aio-pika, a confirmed publish to a quorum queue for each request."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aio_pika
from fastapi import FastAPI
from pydantic import BaseModel


@asynccontextmanager
async def connected(app: FastAPI) -> AsyncIterator[None]:
    """Open one connection and one channel with confirms for all requests."""
    connection = await aio_pika.connect_robust(os.environ.get("BENCH_RABBITMQ", "amqp://guest:guest@localhost/"))
    channel = await connection.channel(publisher_confirms=True)
    await channel.declare_queue("requests", durable=True, arguments={"x-queue-type": "quorum"})
    app.state.exchange = channel.default_exchange
    yield
    await connection.close()


app = FastAPI(lifespan=connected)


class Submission(BaseModel):
    payload: dict
    headers: dict[str, str] = {}
    metadata: dict = {}


@app.post("/api/v1/submit", status_code=202)
async def submit(submission: Submission) -> dict:
    correlation_id = str(uuid.uuid4())
    body = json.dumps({"id": correlation_id, **submission.model_dump()}).encode()
    message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT, message_id=correlation_id)
    await app.state.exchange.publish(message, routing_key="requests")
    return {"correlation_id": correlation_id, "status": "PENDING"}
