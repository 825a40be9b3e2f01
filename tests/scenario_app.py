"""The Flask example with the configuration of a scenario and the dashboard, telling which worker answered."""

from __future__ import annotations

import itertools
import json
import os
import threading
from pathlib import Path

from flask import Response, jsonify, request

import perfkit
from examples.flask_app import app, retrieve
from perfkit.integrations.flask import Perfkit

__all__ = ["app"]

app.config["PERFKIT"] = json.loads(os.environ["SCENARIO"])
Perfkit(app, user=lambda: request.args.get("user"))
visits = itertools.count(1)

if "ALERTS" in os.environ:

    @perfkit.alerts.on_change
    def note(alert: perfkit.alerts.Alert) -> None:
        with Path(os.environ["ALERTS"]).open("a") as told:
            told.write(json.dumps([alert.rule, alert.labels.get("provider"), alert.state]) + "\n")


@app.get("/tale")
def tale() -> Response:
    return Response(perfkit.stream(request.args["q"], model="tale"), mimetype="text/plain")


@app.get("/faq")
def faq() -> Response:
    answer = perfkit.chat(retrieve(request.args["q"]), model="faq", max_tokens=32)
    return jsonify(text=answer.text, cached=answer.cached, cost=answer.cost)


@app.get("/main")
def main() -> Response:
    return jsonify(text=perfkit.chat(request.args["q"], provider="main", max_tokens=1, cache="never").text)


@app.get("/team")
@perfkit.profile("team")
def team() -> Response:
    with perfkit.agent_pool.get_agent("writer") as writer:
        (done,) = perfkit.agents.map_bounded(writer.run, [request.args["q"]])
    if done.error is not None:
        raise done.error
    answer = done.value
    return jsonify(text=answer.text if answer is not None else "", pool=perfkit.agent_pool.stats()["writer"])


@app.get("/stalled")
def stalled() -> Response:
    with perfkit.profile("stall"):
        for _ in range(200):
            threading.Event().wait(0.05)
            caught = {slow.operation: str(slow.where) for slow in perfkit.profiler.slow_captures()}
            if "stall" in caught:
                break
    return jsonify(caught)


@app.get("/profiled")
def profiled() -> Response:
    runs = perfkit.profiler.get_performance_summary()
    return jsonify({name: len(found) for name, found in runs.items()})


@app.after_request
def sign(response: Response) -> Response:
    response.headers["X-Worker"] = str(os.getpid())
    if next(visits) % 10 == 0:
        perfkit.tracker.flush()  # not to wait for the end of a slot of ten seconds
    return response
