"""An answer that appears in the browser while it is written: server-sent events from a threaded Flask app.

Run it: LLM_BASE_URL=https://api.openai.com/v1 LLM_API_KEY=sk-... gunicorn --threads 16 examples.sse:app
"""

import json
import os
from collections.abc import Iterator

from flask import Flask, Response, abort, request

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
)
app = Flask(__name__)
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Ask</title>
<meta name="viewport" content="width=device-width">
<style>:root { color-scheme: light dark } input { max-width: 100% }</style>
<form><input name="q" size="60" maxlength="500" aria-label="Question" required autofocus><button>Ask</button></form>
<p id="answer" aria-live="polite"></p>
<script>
let source
document.forms[0].onsubmit = (event) => {
  event.preventDefault()
  const answer = document.getElementById("answer")
  const end = (failed) => { source.close(); answer.textContent += failed ? " … Please try again." : "" }
  answer.textContent = ""
  source?.close()
  source = new EventSource("events?" + new URLSearchParams(new FormData(event.target)))
  source.onmessage = (message) => { answer.textContent += JSON.parse(message.data) }
  source.addEventListener("end", (message) => end(JSON.parse(message.data).error))
  source.onerror = () => end(true)
}
</script>"""


def events(question: str) -> Iterator[str]:
    try:
        with perfkit.stream(question, max_tokens=64) as stream:  # a browser that leaves ends it at the provider too
            for text in stream:
                yield f"data: {json.dumps(text)}\n\n"  # JSON keeps line ends inside one event
        yield f"event: end\ndata: {json.dumps({'cost': stream.response.cost if stream.response else None})}\n\n"
    except perfkit.PerfkitError as error:
        yield f"event: end\ndata: {json.dumps({'error': type(error).__name__})}\n\n"


@app.get("/")
def page() -> str:
    return PAGE


@app.get("/events")
def answer() -> Response:
    question = request.args.get("q", "").strip() or abort(400)
    return Response(events(question), mimetype="text/event-stream", headers={"X-Accel-Buffering": "no"})
