"""The application as Celery tasks, each of which tells what of a request it has."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from servers import subject

import perfkit
from perfkit.clock import SYSTEM_CLOCK
from perfkit.integrations.celery import setup
from perfkit.pipeline.scoping import current_scope

app = Celery("servers", broker=os.environ["BROKER"], backend=os.environ["BROKER"])
app.conf.update(worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True)
perfkit.configure(web={"request_timeout": 600, "request_budget": 1})
setup()


@app.task(name="ask", bind=True)  # type: ignore[untyped-decorator]
def ask(task: Any, question: str) -> dict[str, Any]:
    scope = current_scope()
    deadline, wallets = (scope.deadline, scope.wallets) if scope is not None else (None, ())
    left = 0.0 if deadline is None else deadline - SYSTEM_CLOCK.now()
    told = {"id": task.request.id, "left": left, "wallets": [wallet.request for wallet in wallets]}
    return {**subject.answer(question), **told}
