"""What is agreed about a provider when it is registered, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perfkit.values import finite

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["CAPABILITIES", "Terms"]

CAPABILITIES = ("tools", "vision", "audio", "json", "streaming")
ADAPTIVE = "adaptive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """See ProviderRouter.register_provider."""

    weight: float = 1.0
    priority: int = 1
    models: frozenset[str] | None = None
    quality: float | None = None
    max_concurrency: int | str | None = None
    rpm: float | None = None
    tpm: float | None = None
    cost_limit_per_request: float | None = None
    cost_limit_per_day: float | None = None
    context_window: int | None = None
    capabilities: frozenset[str] | None = None
    prefill: bool = False

    @property
    def fits_all(self) -> bool:
        """Whether nothing is known that a request could ask too much of."""
        return self.capabilities is None and self.context_window is None

    @property
    def limited(self) -> bool:
        """Whether anything has to be counted before a call may go."""
        limits = (self.max_concurrency, self.rpm, self.tpm, self.cost_limit_per_request, self.cost_limit_per_day)
        return any(limit is not None for limit in limits)

    @classmethod
    def of(cls, name: str, provider: Any, given: dict[str, Any]) -> Terms:
        """Return the terms of provider `name`.

        Raises:
            TypeError: it is no provider, or an argument has the wrong type.
            ValueError: an argument is out of bounds.
        """
        if not isinstance(name, str) or not name:
            raise ValueError(f"a provider's name must be a string that is not empty, not {name!r}")
        if not callable(getattr(provider, "chat_completion", None)):
            raise TypeError(f"provider {name!r} has no method chat_completion(request): {provider!r}")
        known = dict(given)
        models = known.pop("models", None)
        if models is None:
            models = getattr(provider, "supported_models", None)
        return cls(
            models=_names("models", name, models),
            capabilities=_capabilities(name, known.pop("capabilities", None)),
            max_concurrency=_concurrency(known.pop("max_concurrency", None)),
            prefill=bool(known.pop("prefill", False)),
            priority=int(finite("priority", known.pop("priority", 1))),
            **{key: _number(key, value) for key, value in known.items()},  # type: ignore[arg-type]
        )


_ABOVE_ZERO = ("weight", "rpm", "tpm", "context_window")


def _number(key: str, value: Any) -> float | None:
    if value is None:
        return None
    return finite(key, value, above=0) if key in _ABOVE_ZERO else finite(key, value, least=0)


def _names(what: str, name: str, values: Iterable[str] | None) -> frozenset[str] | None:
    if isinstance(values, str):
        raise TypeError(f"{what} of provider {name!r} must be a list of names, not the string {values!r}")
    return frozenset(values) if values is not None else None


def _capabilities(name: str, values: Iterable[str] | None) -> frozenset[str] | None:
    found = _names("capabilities", name, values)
    unknown = sorted((found or frozenset()) - set(CAPABILITIES))
    if unknown:
        raise ValueError(f"provider {name!r} has unknown capabilities {unknown}; known: {', '.join(CAPABILITIES)}")
    return found


def _concurrency(value: Any) -> int | str | None:
    if value is None or value == ADAPTIVE:
        return value  # type: ignore[no-any-return]
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"max_concurrency must be a whole number or {ADAPTIVE!r}, not {value!r}")
    return int(finite("max_concurrency", value, least=1))
