"""The demo against a real provider: nothing is killed, and what can be counted is counted here, in the client."""

from __future__ import annotations

import os
import socket
import sys
import threading
from typing import Any
from urllib.parse import urlsplit

from perfkit.demo.ways import Endpoint, Setting
from perfkit.errors import ConfigError
from perfkit.metrics import PerformanceTracker
from perfkit.providers import create_provider
from perfkit.transport import ConnectionPool

__all__ = ["RealProvider"]

TIMEOUT = 60.0  # seconds
_SHOWN = 8  # model names in an error


class _Connects:
    """TCP connections opened by this process, whichever library opens them: the interpreter tells its audit hook."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards total and _listens
        self.total = 0
        self._listens = False

    def listen(self) -> None:
        """Begin to count; a hook cannot be taken away again, so there is one a process."""
        with self._lock:
            if not self._listens:
                self._listens = True
                sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect" and arguments[0].type == socket.SOCK_STREAM:
            with self._lock:
                self.total += 1


_connects = _Connects()


class RealProvider:
    """A stage that is one OpenAI-compatible provider, as it is.

    Args:
        base_url: with the version prefix.
        model: None for the only one it has.
        key_variable: environment variable of the key; None sends no key.

    Raises:
        ConfigError: the variable is not set, the URL cannot be used, or there is a choice of models.
        PerfkitError: the provider does not tell its models.
    """

    kill_first = None

    def __init__(self, base_url: str, model: str | None, key_variable: str | None) -> None:
        endpoint = Endpoint(urlsplit(base_url).hostname or "provider", "openai", base_url, _key(key_variable))
        self.setting = Setting(
            (endpoint,),
            _model(endpoint, model),
            TIMEOUT,
            prices={},
            max_tokens_field="max_completion_tokens" if endpoint.name.endswith("openai.com") else "max_tokens",
        )
        self._before = 0

    def restart(self) -> None:
        """Count from here."""
        _connects.listen()
        self._before = _connects.total

    def seen(self) -> dict[str, int]:
        """Return the connections opened since."""
        return {"connections": _connects.total - self._before}


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        raise ConfigError(f"--api-key-env {variable}: there is no such environment variable, or it is empty")
    return key


def _model(endpoint: Endpoint, wanted: str | None) -> str:
    """Return the model to ask for; makes a provider in any case, so that a wrong URL is told before the race."""
    connections, tracker = ConnectionPool(), PerformanceTracker()
    provider = create_provider(
        endpoint.kind,
        name=endpoint.name,
        base_url=endpoint.base_url,
        api_key=endpoint.api_key,
        connections=connections,
        tracker=tracker,
        key_variable=None,  # a key in the environment is sent only where it is asked for
    )
    try:
        models = provider.list_models() if wanted is None else [wanted]
    finally:
        connections.close()
        tracker.close()
    if len(models) != 1:
        some = ", ".join(models[:_SHOWN]) + (", ..." if len(models) > _SHOWN else "")
        raise ConfigError(f"--model is needed: {endpoint.base_url} has {len(models)} models ({some or 'none'})")
    return models[0]
