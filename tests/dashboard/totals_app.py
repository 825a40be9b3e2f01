"""A Flask app whose answers say what they cost, for counting on both sides."""

from __future__ import annotations

import json
import os

from flask import Flask, Response, jsonify, request

import perfkit
from perfkit.integrations.flask import Perfkit

__all__ = ["app"]

app = Flask(__name__)
app.config["PERFKIT"] = json.loads(os.environ["TOTALS"])
Perfkit(app, dashboard=lambda: True)


@app.get("/ask")
def ask() -> Response:
    asked = request.args
    answer = perfkit.chat(asked["q"], model=asked["model"], temperature=0, agent=asked["agent"])
    tokens = 0 if answer.cached else answer.usage.total_tokens
    return jsonify(cached=answer.cached, cost=answer.cost, tokens=tokens, worker=os.getpid())


@app.get("/broken")
def broken() -> Response:
    raise RuntimeError("view failed")
