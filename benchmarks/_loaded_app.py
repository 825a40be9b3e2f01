"""The application of benchmarks/app_load.py: as WSGI under gunicorn and uWSGI, and as Celery tasks.

Its answers say what they cost and who gave them, so that the load generator can count for itself.
"""

from __future__ import annotations

import json
import os
from typing import Any

from flask import Flask, request

import perfkit
from perfkit.integrations.flask import Perfkit

__all__ = ["app", "tasks"]

app = Flask(__name__)
app.config["PERFKIT"] = json.loads(os.environ["TABLES"])
Perfkit(app, dashboard=lambda: True)


def answer(question: str, agent: str) -> dict[str, Any]:
    """Ask, and tell what the load generator counts."""
    if question == "break":
        raise RuntimeError("as asked")
    said = perfkit.chat(question, model="m", temperature=0, agent=agent, max_tokens=50)
    tokens = 0 if said.cached else said.usage.total_tokens
    return {"cached": said.cached, "cost": said.cost, "tokens": tokens, "worker": os.getpid()}


@app.get("/ask")
def ask() -> dict[str, Any]:
    return answer(request.args["q"], request.args["agent"])


def _celery() -> Any:
    from celery import Celery

    from perfkit.integrations.celery import setup

    made = Celery("tasks", broker=os.environ["BROKER"], backend=os.environ["BROKER"])
    made.conf.update(worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True)
    setup()
    made.task(name="ask")(answer)
    return made


tasks = _celery() if "BROKER" in os.environ else None
