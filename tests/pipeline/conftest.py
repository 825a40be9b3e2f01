"""The shared client with one provider, over real sockets."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from _noon import noon

import perfkit
from perfkit.testing import FaultServer


@pytest.fixture
def chat(fault: FaultServer) -> Callable[..., perfkit.ChatResponse]:
    """Return `perfkit.chat` with one provider, whose prompt tokens cost one dollar and completion tokens two."""
    perfkit.configure(
        providers={"local": {"kind": "openai", "base_url": fault.base_url, "api_key": "sk-test"}},
        client={"default_model": "tiny"},
        tokens={"prices": {"tiny": {"input": 1_000_000.0, "output": 2_000_000.0}}, "timezone": noon()},
    )
    return perfkit.chat
