"""The application as Celery tasks."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from servers import subject

app = Celery("servers", broker=os.environ["BROKER"], backend=os.environ["BROKER"])
app.conf.update(worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True)


@app.task(name="ask")  # type: ignore[untyped-decorator]
def ask(question: str) -> dict[str, Any]:
    return subject.answer(question)
