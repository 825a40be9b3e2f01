"""Looking at all providers at the same time: warm-up and the check of credentials, each with an outcome of its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from perfkit.clock import SYSTEM_CLOCK
from perfkit.errors import PerfkitError
from perfkit.values import ChatRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Outcome", "validated", "warmed"]

MOST = 16  # threads


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went with one provider; true when it went well.

    Attributes:
        seconds: it took.
        connections: that are open and ready, where they were asked for.
        error: what went wrong, None for nothing.
    """

    ok: bool
    seconds: float
    connections: int = 0
    error: Exception | None = None

    def __bool__(self) -> bool:
        return self.ok


def warmed(
    providers: Mapping[str, tuple[Any, str]], *, connections: int, request: bool, timeout: float
) -> dict[str, Outcome]:
    """Return how the warm-up of each provider went; see `ProviderRouter.warm_up`.

    Args:
        providers: by name, with the model to ask for.
        connections: to open to each.
        request: send one of one token.
        timeout: seconds for it.
    """
    return _at_once(providers, partial(_warm, connections=connections, request=request, timeout=timeout))


def validated(providers: Mapping[str, tuple[Any, str]], timeout: float) -> dict[str, Outcome]:
    """Return whether the address and key of each provider are right."""
    return _at_once(providers, partial(_validate, timeout=timeout))


def _at_once(providers: Mapping[str, tuple[Any, str]], look: Callable[[Any, str], int]) -> dict[str, Outcome]:
    if not providers:
        return {}
    with ThreadPoolExecutor(min(MOST, len(providers)), thread_name_prefix="perfkit-warm-up") as threads:
        futures = {name: threads.submit(_outcome, look, *found) for name, found in providers.items()}
        return {name: future.result() for name, future in futures.items()}


def _outcome(look: Callable[[Any, str], int], provider: Any, model: str) -> Outcome:
    began = SYSTEM_CLOCK.now()
    try:
        connections = look(provider, model)
    except Exception as error:  # whatever a provider raises is its outcome
        return Outcome(False, SYSTEM_CLOCK.now() - began, error=error)
    return Outcome(True, SYSTEM_CLOCK.now() - began, connections)


def _warm(provider: Any, model: str, *, connections: int, request: bool, timeout: float) -> int:
    opened = 0
    if hasattr(provider, "warm_up"):
        opened = provider.warm_up(connections)
        if opened < connections:
            raise PerfkitError(f"only {opened} of {connections} connections could be opened")
    if request:
        if not model:
            raise PerfkitError("there is no model to ask for: the provider was registered without models=")
        provider.chat_completion(ChatRequest("Hi", model, max_tokens=1, timeout=timeout))
    return opened


def _validate(provider: Any, model: str, *, timeout: float) -> int:  # noqa: ARG001 - as above
    if hasattr(provider, "validate"):
        provider.validate(timeout)
    return 0
