"""LiteLLM over perfkit's connections: `perfkit.integrations.litellm.install()` once, before the first call."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from perfkit.integrations._extra import load_extra
from perfkit.integrations._httpx import make_client
from perfkit.integrations._wire import Wire

if TYPE_CHECKING:
    from perfkit.metrics import PerformanceTracker
    from perfkit.transport import ConnectionPool

__all__ = ["install"]


def install(
    *,
    deadline: float | None = None,
    connections: ConnectionPool | None = None,
    tracker: PerformanceTracker | None = None,
    **options: Any,
) -> None:
    """Set `litellm.client_session`, which LiteLLM's synchronous calls to OpenAI-compatible providers go through.

    Call it before LiteLLM makes its first client, for it keeps them. Its Anthropic, Bedrock and other handlers have
    clients of their own, and so has everything asynchronous; those are not touched.

    Args:
        deadline: seconds for each try, to the last byte of the reply or stream; None for none.
        connections: None for `perfkit.connections`.
        tracker: where `http_request_duration` and `first_token` are recorded; None for `perfkit.tracker`.
        **options: further ones of `httpx.Client`.

    Raises:
        ConfigError: the package litellm is not installed, or an option is the pool's business.
        ValueError: `deadline` is not above 0.
    """
    load_extra("litellm:completion", "litellm")
    import litellm

    wire = Wire(connections=connections, tracker=tracker, deadline=deadline)
    litellm.client_session = make_client(sys.modules["httpx"], wire, options)
