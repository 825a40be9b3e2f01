"""A support bot: a page with a conversation, answers from articles, a dashboard for who gives the token at /staff.

Run it: SECRET_KEY=... DASHBOARD_TOKEN=... LLM_BASE_URL=https://api.openai.com/v1 LLM_API_KEY=sk-... \
    gunicorn --threads 16 examples.support_bot.app:app
"""

import os
import secrets
from typing import Any

from flask import Flask, redirect, render_template, request, session, url_for
from werkzeug.wrappers import Response

import perfkit
from examples.support_bot.knowledge import Bot
from perfkit.integrations.flask import Perfkit

KEPT_TURNS = 6  # of a conversation, questions and answers
LONGEST = 500  # characters of a question

app = Flask(__name__)
app.config.update(
    SECRET_KEY=os.environ.get("SECRET_KEY") or secrets.token_hex(),  # one for all workers in production
    SESSION_COOKIE_SAMESITE="Lax",
    PERFKIT={
        "providers": {
            "main": {
                "kind": "openai",
                "base_url": os.environ.get("LLM_BASE_URL", "http://127.0.0.1:8080/v1"),
                "api_key": os.environ.get("LLM_API_KEY", "not-needed"),
            }
        },
        "client": {"default_model": os.environ.get("LLM_MODEL", "tiny")},
        "tokens": {
            "prices": {"tiny": {"input": 0.15, "output": 0.60}},  # US dollars per million tokens
            "budgets": [{"scope": ["user", "*"], "limit": 0.05, "period": "day"}],
        },
        "web": {"request_timeout": 20.0},
        "dashboard": {"token": os.environ.get("DASHBOARD_TOKEN")},
    },
)
Perfkit(app, user=lambda: session.get("visitor"), dashboard=lambda: session.get("staff", False))
perfkit.agent_pool.register("customer_support", Bot, size=16, reset=Bot.forget)


@app.get("/")
def chat() -> str:
    return render_template("chat.html", turns=session.get("turns", []), longest=LONGEST)


@app.post("/")
def say() -> Response | tuple[str, int]:
    question = request.form.get("question", "").strip()[:LONGEST]
    if not question:
        return redirect(url_for("chat"))
    session.setdefault("visitor", secrets.token_hex(8))
    turns: list[dict[str, str]] = session.get("turns", [])
    with perfkit.agent_pool.get_agent("customer_support", timeout=5) as bot:
        bot.turns = turns
        try:
            answer = perfkit.chat(bot.messages(question), temperature=0, max_tokens=64, agent="customer_support")
        except perfkit.PerfkitError as error:
            shown = {"turns": turns, "longest": LONGEST, "question": question, "failure": told(error)}
            return render_template("chat.html", **shown), 503
    said: list[dict[str, Any]] = [
        *turns, {"role": "user", "content": question}, {"role": "assistant", "content": answer.text.strip()},
    ]  # fmt: skip
    session["turns"] = said[-KEPT_TURNS:]
    return redirect(url_for("chat"))


@app.post("/forget")
def forget() -> Response:
    session.pop("turns", None)
    return redirect(url_for("chat"))


@app.get("/staff")
def sign_in() -> str:
    return '<!doctype html><title>Staff</title><form method="post"><label>Token <input name="token" type="password">'


@app.post("/staff")
def signed_in() -> Response | tuple[str, int]:
    token = os.environ.get("DASHBOARD_TOKEN", "")
    if not token or not secrets.compare_digest(token.encode(), request.form.get("token", "").encode()):
        return sign_in(), 403
    session["staff"] = True
    return redirect(url_for("perfkit.dashboard"))


def told(error: perfkit.PerfkitError) -> str:
    """Return what a customer is told; what happened is in the log and on the dashboard."""
    app.logger.warning("no answer: %s: %s", type(error).__name__, error)
    if isinstance(error, perfkit.BudgetExceededError):
        return "That was a lot of questions for one day. Please write us a mail."
    return "I cannot answer right now. Please try again in a minute."
