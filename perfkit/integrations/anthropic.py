"""The anthropic SDK over perfkit's pool: `Anthropic(http_client=perfkit.integrations.anthropic.http_client())`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perfkit.integrations._httpx import client_of_sdk

if TYPE_CHECKING:
    import httpx2

    from perfkit.metrics import PerformanceTracker
    from perfkit.transport import ConnectionPool

__all__ = ["http_client"]


def http_client(
    *,
    deadline: float | None = None,
    connections: ConnectionPool | None = None,
    tracker: PerformanceTracker | None = None,
    **options: Any,
) -> httpx2.Client:
    """Return what `Anthropic(http_client=...)` wants; the SDK keeps its interface, exceptions, retries and timeouts.

    Args:
        deadline: seconds for each try, from asking for a connection to the last byte of the reply or stream; None for
            none: the SDK's timeouts begin anew with each byte.
        connections: None for `perfkit.connections`; closing the SDK's client leaves it open.
        tracker: where `http_request_duration` and `first_token` are recorded; None for `perfkit.tracker`.
        **options: further ones of `httpx2.Client`, such as `timeout`, which the SDK takes as its own default.

    Raises:
        ConfigError: the package anthropic is not installed, or an option is the pool's business.
        ValueError: `deadline` is not above 0.
    """
    client: httpx2.Client = client_of_sdk(
        "anthropic", options, deadline=deadline, connections=connections, tracker=tracker
    )
    return client
