"""What a provider is: a name, the models it offers, and one method that answers.

The router needs no more than `chat_completion`; this class is there to inherit the rest from. Providers that speak HTTP
start from `perfkit.providers.http.HTTPProvider`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from perfkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Generator

    from perfkit.values import ChatRequest, ChatResponse

__all__ = ["Provider"]


class Provider(ABC):
    """A source of answers.

    Args:
        name: what the router, metrics and errors call it.
        models: models it offers; a mapping from what callers say to the provider's own names, so that one word can mean
            the like model of several vendors; None for any.
        families: beginnings of the names it offers when `models` is None; none means it takes any model.

    Raises:
        ConfigError: the name is empty, or `models` is not a list of names.
    """

    def __init__(
        self, name: str, *, models: Iterable[str] | Mapping[str, str] | None = None, families: tuple[str, ...] = ()
    ) -> None:
        if not isinstance(name, str) or not name:
            raise ConfigError(f"a provider needs a name, not {name!r}", key="name")
        self.name = name
        self.supported_models = _model_names(name, models)
        self._own_names: dict[str, str] = dict(models) if isinstance(models, Mapping) else {}
        self._families = families

    def offers(self, model: str) -> bool:
        """Tell whether the provider may be asked for `model`."""
        if self.supported_models is not None:
            return model in self.supported_models
        return not self._families or model.startswith(self._families)

    def own_name(self, model: str) -> str:
        """Return what the provider calls `model`."""
        return self._own_names.get(model, model)

    @abstractmethod
    def chat_completion(self, request: ChatRequest) -> ChatResponse:
        """Return the answer of `request.model`.

        Raises:
            ProviderError: the provider refused or failed; its subclass says how.
            TransportError: the request did not come back whole.
        """

    def stream(self, request: ChatRequest) -> Generator[str, None, ChatResponse]:
        """Yield the answer's text in pieces and return it whole; here in one piece, for providers that cannot stream.

        Raises:
            StreamInterruptedError: it broke after the first piece.
        """
        response = self.chat_completion(request)
        if response.text:
            yield response.text
        return response

    def list_models(self, timeout: float = 10.0) -> list[str]:  # noqa: ARG002 - for those that have to ask
        """Return the names of the models, asking the provider for at most `timeout` seconds where it can be asked."""
        return sorted(self.supported_models or ())

    def validate(self, timeout: float = 10.0) -> None:
        """Check address and credentials, in at most `timeout` seconds and without using tokens.

        Raises:
            AuthenticationError: naming the variable to set.
            PerfkitError: it cannot be reached or does not work.
        """
        self.list_models(timeout)

    def close(self) -> None:  # noqa: B027 - most hold nothing: sockets are the pool's
        """Let go of what the provider holds; it may be used again."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


def _model_names(name: str, models: object) -> frozenset[str] | None:
    if models is None:
        return None
    if isinstance(models, str) or not isinstance(models, Iterable):
        raise ConfigError(f"models of provider {name!r} must be a list of names, not {models!r}", key="models")
    names = frozenset(models)
    own_names = models.values() if isinstance(models, Mapping) else ()
    if not all(isinstance(model, str) and model for model in (*names, *own_names)):
        raise ConfigError(f"models of provider {name!r} must be names, not {models!r}", key="models")
    return names
