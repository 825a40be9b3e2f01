"""Checks of the configured providers: is the address right, and does the key work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perfkit.doctor.finding import fine, problem, warning
from perfkit.errors import AuthenticationError
from perfkit.routing import ProviderRouter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perfkit.doctor.finding import Finding

__all__ = ["examine"]

TIMEOUT = 10.0  # seconds for each


def examine(router: ProviderRouter | None = None) -> Iterator[Finding]:
    """Yield a finding for each provider; each is asked for its models at the same time, which uses no tokens.

    Args:
        router: whose providers; None means those of the configuration.
    """
    asked = router if router is not None else ProviderRouter.instance()
    outcomes = asked.validate_providers(TIMEOUT)
    if not outcomes:
        yield warning("providers", "none is configured", "there is nobody to ask", "add [providers.<name>]")
    for name, outcome in outcomes.items():
        check = f"provider {name}"
        if outcome.ok:
            yield fine(check, f"answers in {outcome.seconds:.2f} s and takes the key")
        elif isinstance(outcome.error, AuthenticationError):
            yield problem(check, str(outcome.error), "every call to it fails", _variable(asked, name))
        else:
            yield problem(check, str(outcome.error), "calls to it fail", "check base_url and the network")


def _variable(router: ProviderRouter, name: str) -> str:
    """Say where the key goes, by the name of its variable."""
    options = getattr(router.get_provider(name), "options", None)
    variable = getattr(options, "key_variable", None)
    return f"put a valid key into {variable}" if variable else "give a valid api_key"
