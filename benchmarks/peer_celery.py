"""A usual alternative: FastAPI, Celery and Redis. Needs the packages of the bench environment.

    python -m benchmarks.peer_celery COUNT

puts that many tasks into the queue, and prints how many.
"""

from __future__ import annotations

import json
import os
import sys

from celery import Celery
from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from benchmarks.running import BODY

URL = os.environ.get("BENCH_REDIS", "redis://localhost:6379")
celery = Celery("peer", broker=URL + "/1", backend=URL + "/2")
app = FastAPI()


class Submission(BaseModel):
    payload: dict
    headers: dict[str, str] = {}
    metadata: dict = {}


@celery.task(name="echo")
def echo(payload: dict) -> dict:
    return payload


@app.post("/api/v1/submit", status_code=202)
def submit(submission: Submission) -> dict:
    return {"correlation_id": echo.delay(submission.payload).id, "status": "PENDING"}


@app.post("/wait")
def wait(submission: Submission) -> dict:
    """A whole journey in one answer, in a thread of FastAPI's pool, because Celery blocks."""
    task = echo.delay(submission.payload)
    result = task.get(timeout=10, interval=0.002)
    return {"correlation_id": task.id, "status": "COMPLETED", "result": result}


@app.post("/stream")
def stream(submission: Submission) -> StreamingResponse:
    """A whole journey as a stream of two events."""
    task = echo.delay(submission.payload)

    def events():
        yield event("accepted", {"correlation_id": task.id, "status": "PENDING"})
        result = task.get(timeout=10, interval=0.002)
        yield event("completed", {"correlation_id": task.id, "status": "COMPLETED", "result": result})

    return StreamingResponse(events(), media_type="text/event-stream")


@app.get("/api/v1/response/{correlation_id}")
def response(correlation_id: str, response: Response) -> dict:
    """202 until there is a result, for clients that poll."""
    task = celery.AsyncResult(correlation_id)
    if not task.ready():
        response.status_code = 202
        return {"correlation_id": correlation_id, "status": "PENDING"}
    return {"correlation_id": correlation_id, "status": "COMPLETED", "result": task.get()}


def event(name: str, document: dict) -> str:
    """One event in the format of Server-Sent Events."""
    return f"event: {name}\ndata: {json.dumps(document)}\n\n"


if __name__ == "__main__":
    count = int(sys.argv[1])
    payload = json.loads(BODY)["payload"]
    for _ in range(count):
        echo.delay(payload)
    print(count)
