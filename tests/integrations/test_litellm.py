"""LiteLLM over the pool: its OpenAI-compatible calls reach the fault server over one connection."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
from integrations.asking import SECRET, said, settled

import perfkit.integrations.litellm
from perfkit.testing import faults
from perfkit.testing.faults import FaultServer
from perfkit.transport import ConnectionPool

pytestmark = pytest.mark.filterwarnings("default")  # LiteLLM's own are its business


@pytest.fixture
def litellm() -> Any:
    if importlib.util.find_spec("litellm") is None:
        pytest.skip("package litellm is not here; it pins openai<3, so it needs an environment of its own")
    import litellm

    litellm.in_memory_llm_clients_cache.flush_cache()
    return litellm


def test_chat_and_streams_take_one_connection(litellm: Any, fault: FaultServer) -> None:
    connections = ConnectionPool(proxy="")
    perfkit.integrations.litellm.install(connections=connections)
    wanted = {**said(), "model": "openai/m", "api_base": fault.base_url, "api_key": SECRET, "max_retries": 0}
    assert litellm.completion(**wanted).choices[0].message.content == "echo: one two three"
    for _ in range(5):
        pieces = [event.choices[0].delta.content or "" for event in litellm.completion(**wanted, stream=True)]
        assert "".join(pieces) == "echo: one two three"
    assert settled(fault)["connections"] == 1
    fault.behave(faults.hang())
    with pytest.raises(litellm.Timeout):
        litellm.completion(**wanted, timeout=0.3)
    litellm.client_session = None
    connections.close()
