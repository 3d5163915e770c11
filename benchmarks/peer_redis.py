"""A program written by hand: FastAPI and redis.asyncio, a record and a stream entry for each request."""

from __future__ import annotations

import json
import os
import uuid

from fastapi import FastAPI
from pydantic import BaseModel
from redis.asyncio import Redis

redis = Redis.from_url(os.environ.get("BENCH_REDIS", "redis://localhost:6379"))
app = FastAPI()


class Submission(BaseModel):
    payload: dict
    headers: dict[str, str] = {}
    metadata: dict = {}


@app.post("/api/v1/submit", status_code=202)
async def submit(submission: Submission) -> dict:
    correlation_id = str(uuid.uuid4())
    body = json.dumps(submission.model_dump())
    await redis.set(f"record:{correlation_id}", body, ex=3600)
    await redis.xadd("requests", {"id": correlation_id})
    return {"correlation_id": correlation_id, "status": "PENDING"}
