"""Several workers that share answers, budgets and metrics through Redis.

Run it: REDIS_URL=redis://127.0.0.1:6379/0 LLM_BASE_URL=https://api.openai.com/v1 LLM_API_KEY=sk-... \
    gunicorn --workers 4 --threads 8 examples.multi_worker:app
"""

import os

from flask import Flask, Response, jsonify, request

import perfkit
from perfkit.integrations.flask import Perfkit

app = Flask(__name__)
app.config["PERFKIT"] = {
    "providers": {
        "main": {
            "kind": "openai",
            "base_url": os.environ.get("LLM_BASE_URL", "http://127.0.0.1:8080/v1"),
            "api_key": os.environ.get("LLM_API_KEY", "not-needed"),
        }
    },
    "client": {"default_model": os.environ.get("LLM_MODEL", "tiny")},
    "state": {"url": os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")},
    "cache": {"backend": "redis"},
    "metrics": {"store": "redis"},
    "tokens": {
        "prices": {"tiny": {"input": 0.15, "output": 0.60}},  # US dollars per million tokens
        "budgets": [{"scope": ["user", "*"], "limit": 0.01, "period": "day"}],
    },
    "dashboard": {"token": os.environ.get("DASHBOARD_TOKEN")},  # without one nobody sees it
}
Perfkit(app, user=lambda: request.headers.get("X-User"))


@app.get("/ask")
def ask() -> Response:
    answer = perfkit.chat(request.args["q"], temperature=0, max_tokens=32)
    return jsonify(text=answer.text, cached=answer.cached, cost=answer.cost, worker=os.getpid())


@app.get("/totals")
def totals() -> Response:
    everybody = perfkit.tracker.merged()
    return jsonify(workers=len(everybody.workers), calls=everybody.get_stats("agent_response_time").get("count", 0))


@app.errorhandler(perfkit.BudgetExceededError)
def too_dear(error: perfkit.BudgetExceededError) -> tuple[Response, int]:
    return jsonify(error=str(error)), 429
