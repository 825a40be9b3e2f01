from __future__ import annotations

import json
from typing import Any
from urllib.request import urlopen

import pytest
from _parts import needs_module
from _servers import Server, environment, polled

GUNICORN = (
    *("gunicorn", "--bind", "fd://{fd}", "--workers", "1", "--threads", "2"),
    *("--config", "python:perfkit.integrations.gunicorn", "servers.frozen"),
)
UWSGI = (
    *("pyuwsgi", "--http-socket", "fd://{fd}", "--processes", "1", "--master", "--need-app"),
    *("--die-on-term", "--enable-threads", "--module", "servers.frozen"),
)


def told(server: Server) -> dict[str, Any]:
    with urlopen(f"http://127.0.0.1:{server.port}/", timeout=20) as reply:
        found: dict[str, Any] = json.load(reply)
        return found


@pytest.mark.parametrize("command", [(*GUNICORN, "--preload"), UWSGI], ids=["gunicorn", "uwsgi"])
def test_what_is_loaded_before_the_fork_is_frozen(command: tuple[str, ...]) -> None:
    needs_module(command[0])
    with Server(*command, env=environment()) as server:
        first = told(server)
        assert first["workload"] == "fork_server"
        assert first["frozen"] > 10_000
        later = polled(lambda: (now := told(server))["passes"]["young"] and now)
        assert later["passes"]["deep"] == 0
        assert later["frozen"] <= first["frozen"]  # what was made since may die in cycles
        assert server.stop() == 0


@pytest.mark.parametrize("command", [GUNICORN, (*UWSGI, "--lazy-apps")], ids=["gunicorn", "uwsgi"])
def test_garbage_is_collected_after_requests(command: tuple[str, ...]) -> None:
    needs_module(command[0])
    with Server(*command, env=environment()) as server:
        assert told(server)["workload"] is None  # the first request that ends begins "low_latency"
        assert polled(lambda: (now := told(server))["passes"]["young"] and now)["workload"] == "low_latency"
        assert server.stop() == 0
