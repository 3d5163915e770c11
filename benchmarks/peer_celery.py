"""What people would build: FastAPI, Celery and Redis. Needs the packages of the bench environment."""

from __future__ import annotations

import os

from celery import Celery
from fastapi import FastAPI
from pydantic import BaseModel

URL = os.environ.get("BENCH_REDIS", "redis://localhost:6379")
celery = Celery("peer", broker=URL + "/1", backend=URL + "/1")
app = FastAPI()


class Submission(BaseModel):
    payload: dict
    headers: dict[str, str] = {}
    metadata: dict = {}


@celery.task
def echo(payload: dict) -> dict:
    return payload


@app.post("/api/v1/submit", status_code=202)
def submit(submission: Submission) -> dict:
    return {"correlation_id": echo.delay(submission.payload).id, "status": "PENDING"}
