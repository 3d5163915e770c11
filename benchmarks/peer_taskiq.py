"""What people would build: FastAPI, Taskiq and Redis. Needs the packages of the bench environment."""

from __future__ import annotations

import os

from fastapi import FastAPI, Response
from pydantic import BaseModel
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

URL = os.environ.get("BENCH_REDIS", "redis://localhost:6379")
broker = ListQueueBroker(URL).with_result_backend(RedisAsyncResultBackend(URL, result_ex_time=600))
app = FastAPI()


class Submission(BaseModel):
    payload: dict
    headers: dict[str, str] = {}
    metadata: dict = {}


@broker.task
async def echo(payload: dict) -> dict:
    return payload


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
