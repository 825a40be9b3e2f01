"""The application as WSGI: GET /<question>. Under uWSGI it sets a fork hook too, before or after perfkit does."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

hooks: list[str] = []  # those of the application that ran in this process

with suppress(ImportError):
    import uwsgi

    uwsgi.post_fork_hook = lambda: hooks.append("set before")

from servers import subject  # noqa: E402 - imports perfkit, which is to find the hook there

from perfkit.integrations.wsgi import PerfkitMiddleware  # noqa: E402

if os.environ.get("POSTFORK") == "1":
    from uwsgidecorators import postfork

    postfork(lambda: hooks.append("set later"))


def plain(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    answer = {**subject.answer(environ["PATH_INFO"].strip("/")), "hooks": hooks}
    body = json.dumps(answer).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


application = PerfkitMiddleware(plain)
