"""The Flask example with the providers of the scenario, telling which worker answered."""

from __future__ import annotations

import json
import os

from flask import Response

import perfkit
from examples.flask_app import app

__all__ = ["app"]

perfkit.configure(json.loads(os.environ["SCENARIO"]))


@app.after_request
def sign(response: Response) -> Response:
    response.headers["X-Worker"] = str(os.getpid())
    return response
