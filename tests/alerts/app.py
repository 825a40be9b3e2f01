"""A web app whose workers share their metrics: it chats, serves the page, and writes down what alerts tell."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import perfkit
from perfkit.metrics.sinks.prometheus import MetricsApp

perfkit.configure(
    metrics={"store": os.environ["STORE"]},
    providers={"openai": {"base_url": os.environ["LLM"], "api_key": "none", "models": ["m"]}},
    router={"failure_threshold": 10_000, "failure_rate": 1.0, "max_attempts": 1},  # ask it however often it fails
    alerts={"interval": 0.2, "webhook": os.environ["WEBHOOK"]},
)
perfkit.alerts.add_rule(
    "high_error_rate", "error_rate > 0.05", "1s", by="provider", min_count=20, window=60
)  # the default, sooner


@perfkit.alerts.on_change
def note(alert: perfkit.alerts.Alert) -> None:
    with Path(os.environ["TOLD"]).open("a") as told:
        told.write(json.dumps([os.getpid(), alert.rule, alert.labels, alert.state]) + "\n")


def chat(n: int) -> int:
    """Ask n questions, and return how many were answered."""
    answered = 0
    for _ in range(n):
        try:
            perfkit.chat("hello", model="m", cache="never")
            answered += 1
        except perfkit.PerfkitError:
            continue
    perfkit.tracker.flush()  # not to wait for the slot's end
    return answered


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
    if environ["PATH_INFO"] == "/metrics":
        return MetricsApp(perfkit.tracker)(environ, start_response)
    n = int(parse_qs(environ["QUERY_STRING"]).get("n", ["0"])[0])
    body = json.dumps({"pid": os.getpid(), "answered": chat(n), "state": perfkit.alerts.state()}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
