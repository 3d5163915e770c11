"""A usual alternative: FastAPI, Taskiq and Redis. Needs the packages of the bench environment."""

from __future__ import annotations

import json
import os

import httpx
from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

URL = os.environ.get("BENCH_REDIS", "redis://localhost:6379")
broker = ListQueueBroker(URL).with_result_backend(RedisAsyncResultBackend(URL, result_ex_time=600))
app = FastAPI()
client: httpx.AsyncClient | None = None


class Submission(BaseModel):
    payload: dict
    headers: dict[str, str] = {}
    metadata: dict = {}


@broker.task
async def echo(payload: dict) -> dict:
    return payload


@broker.task
async def forward(url: str, payload: dict) -> dict:
    global client
    client = client or httpx.AsyncClient()
    return (await client.post(url, json=payload)).json()


@app.on_event("startup")
async def startup() -> None:
    await broker.startup()


@app.post("/api/v1/submit", status_code=202)
async def submit(submission: Submission, response: Response) -> dict:
    task = await echo.kiq(submission.payload)
    return {"correlation_id": task.task_id, "status": "PENDING"}


@app.post("/wait")
async def wait(submission: Submission) -> dict:
    task = await echo.kiq(submission.payload)
    result = await task.wait_result(check_interval=0.002, timeout=10)
    return {"correlation_id": task.task_id, "status": "COMPLETED", "result": result.return_value}


@app.post("/stream")
async def stream(submission: Submission) -> StreamingResponse:
    """A whole journey as a stream of two events."""
    task = await echo.kiq(submission.payload)

    async def events():
        yield event("accepted", {"correlation_id": task.task_id, "status": "PENDING"})
        result = await task.wait_result(check_interval=0.002, timeout=10)
        document = {"correlation_id": task.task_id, "status": "COMPLETED", "result": result.return_value}
        yield event("completed", document)

    return StreamingResponse(events(), media_type="text/event-stream")


@app.get("/api/v1/response/{correlation_id}")
async def response(correlation_id: str, response: Response) -> dict:
    """202 until there is a result, for clients that poll."""
    if not await broker.result_backend.is_result_ready(correlation_id):
        response.status_code = 202
        return {"correlation_id": correlation_id, "status": "PENDING"}
    result = await broker.result_backend.get_result(correlation_id)
    return {"correlation_id": correlation_id, "status": "COMPLETED", "result": result.return_value}


def event(name: str, document: dict) -> str:
    """One event in the format of Server-Sent Events."""
    return f"event: {name}\ndata: {json.dumps(document)}\n\n"


@app.post("/forward")
async def forwarded(submission: Submission) -> dict:
    task = await forward.kiq(os.environ["BENCH_TARGET"], submission.payload)
    result = await task.wait_result(check_interval=0.002, timeout=10)
    return {"correlation_id": task.task_id, "status": "COMPLETED", "result": result.return_value}
