"""A Flask app that asks a model.

Run it: LLM_BASE_URL=https://api.openai.com/v1 LLM_API_KEY=sk-... gunicorn --threads 16 examples.flask_app:app
"""

import os

from flask import Flask, Response, jsonify, request

import perfkit

perfkit.configure(
    providers={
        "main": {
            "kind": "openai",
            "base_url": os.environ.get("LLM_BASE_URL", "http://127.0.0.1:8080/v1"),
            "api_key": os.environ.get("LLM_API_KEY", "not-needed"),
        }
    },
    client={"default_model": os.environ.get("LLM_MODEL", "tiny")},
    metrics={"statsd": os.environ.get("STATSD", "127.0.0.1:8125")},
)
app = Flask(__name__)


@perfkit.profile("retrieve")
def retrieve(question: str) -> str:
    """Stand for the work around the call: look something up, render a template."""
    return f"Answer in one sentence: {question}"


@app.get("/ask")
def ask() -> Response:
    answer = perfkit.chat(retrieve(request.args["q"]), temperature=0, max_tokens=32, user=request.args.get("user"))
    return jsonify(text=answer.text, cached=answer.cached, cost=answer.cost, seconds=answer.latency)


@app.get("/stream")
def stream() -> Response:
    return Response(perfkit.stream(retrieve(request.args["q"]), max_tokens=32), mimetype="text/plain")


@app.get("/stats")
def stats() -> Response:
    return jsonify(
        calls=perfkit.tracker.get_stats("agent_response_time"),
        retrieve=perfkit.tracker.get_stats("operation_duration", tags={"operation": "retrieve"}),
        cache=perfkit.cache.stats(),
        providers=perfkit.router.health(),
    )


@app.errorhandler(perfkit.PerfkitError)
def failed(error: perfkit.PerfkitError) -> tuple[Response, int]:
    return jsonify(error=type(error).__name__, message=str(error)), 503
