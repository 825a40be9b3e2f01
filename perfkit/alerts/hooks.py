"""Who is told when an alert changes: the log, callables, and a webhook over perfkit's own connections."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from perfkit.transport import HTTPClient
from perfkit.transport.origin import split_url

if TYPE_CHECKING:
    from perfkit.alerts.rule import Alert
    from perfkit.transport import ConnectionPool

__all__ = ["Webhook", "describe", "log_change", "worth_telling"]

log = logging.getLogger("perfkit.alerts")

_TIMEOUT = 10.0  # seconds for one notice, retries included
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "critical": logging.ERROR}


def worth_telling(alert: Alert) -> bool:
    """Whether people want to hear of it: that it fires, no longer does, or that nobody can tell any more."""
    return alert.state in ("firing", "resolved") or (alert.state == "no-data" and alert.fired)


def describe(alert: Alert) -> str:
    """Return one line for people."""
    labels = "".join(f" {name}={value!r}" for name, value in alert.labels.items())
    values = ", ".join(f"{name} {value:.4g}" for name, value in alert.values.items())
    return f"{alert.state}: {alert.rule}{labels} ({alert.severity}): {alert.condition}{'; ' if values else ''}{values}"


def log_change(alert: Alert) -> None:
    """Log a change: firing as loud as it is severe, the rest quietly."""
    level = _LEVELS[alert.severity] if alert.state == "firing" else logging.INFO
    log.log(level if worth_telling(alert) else logging.DEBUG, "alert %s", describe(alert))


class Webhook:
    """Posts what is worth telling as JSON; "text" is what Slack, Mattermost and Teams show.

    Args:
        url: where to; as it often holds a secret, it is never shown.
        connections: None for `perfkit.connections`.

    Raises:
        ConfigError: it is not an http or https URL.
    """

    def __init__(self, url: str, *, connections: ConnectionPool | None = None) -> None:
        split_url(url)
        self._client = HTTPClient(url, timeout=_TIMEOUT, connections=connections)

    def __call__(self, alert: Alert) -> None:
        """Post a change; a reply of 400 and more counts as a failure and is logged."""
        if not worth_telling(alert):
            return
        body: dict[str, Any] = {"text": f"perfkit alert {describe(alert)}", **alert.to_dict()}
        reply = self._client.post("", body)
        if reply.status >= 400:  # noqa: PLR2004 - HTTP
            log.warning("the alert webhook answered %d; %s was not told", reply.status, alert.rule)

    def __repr__(self) -> str:
        return "Webhook()"
