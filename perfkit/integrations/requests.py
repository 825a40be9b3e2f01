"""requests over perfkit's connections: `perfkit.integrations.requests.session()` instead of `requests.Session()`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perfkit.integrations._extra import load_extra
from perfkit.integrations._wire import Wire

if TYPE_CHECKING:
    import requests

    from perfkit.metrics import PerformanceTracker
    from perfkit.transport import ConnectionPool

__all__ = ["session"]


def session(
    *,
    deadline: float | None = None,
    connections: ConnectionPool | None = None,
    tracker: PerformanceTracker | None = None,
) -> requests.Session:
    """Return a session over the pool; cookies, redirects, hooks and exceptions stay those of requests.

    A request without `timeout=` has the waits of the pool's settings, not none. `verify=` (and REQUESTS_CA_BUNDLE),
    `cert=` and `proxies=` are obeyed: where they differ from what the pool does, the session keeps connections of its
    own, with the settings the pool had when they were first used. Otherwise certificates are checked against the
    operating system's trust store. Bodies are sent whole; replies arrive decoded, also as `response.raw`.

    Args:
        deadline: seconds for each request, to the last byte of its reply; None for none.
        connections: None for `perfkit.connections`; closing the session leaves it open.
        tracker: where `http_request_duration` and `first_token` are recorded; None for `perfkit.tracker`.

    Raises:
        ConfigError: the package requests is not installed.
        ValueError: `deadline` is not above 0.
    """
    made: requests.Session = load_extra("requests:Session", "requests")()
    adapter = load_extra("perfkit.integrations._adapter:PoolAdapter", "requests")
    wire = Wire(connections=connections, tracker=tracker, deadline=deadline)
    for prefix in ("https://", "http://"):
        made.mount(prefix, adapter(wire))
    return made
