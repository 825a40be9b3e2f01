"""Where vectors come from: any callable of texts, an OpenAI-compatible endpoint, a local model, or hashed n-grams."""

from __future__ import annotations

import importlib.util
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from perfkit._registry import Registry
from perfkit.errors import ConfigError, ProviderError, ResponseFormatError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from perfkit.transport import ConnectionPool

__all__ = ["EMBEDDERS", "Embed", "EndpointEmbedder", "HashedNgrams", "SentenceTransformerEmbedder", "make_embedder"]

Embed = Callable[[Sequence[str]], Sequence[Any]]  # texts to one vector each
_OK = 200


class HashedNgrams:
    """Vectors of hashed runs of three to five letters: nothing to download, 0.1 ms a question.

    It knows spelling, not meaning: it finds the same question with a typo, another ending or a politer beginning. On
    Quora's pairs a cosine of 0.95 finds 6 % of the duplicates (a small neural model 20 %), and it takes "with" and
    "without" for near; the guards are what makes it usable.

    Args:
        dimensions: of the vectors.
    """

    def __init__(self, dimensions: int = 384) -> None:
        self.dimensions = dimensions

    def __call__(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """Return a vector for each text."""
        return [self._vector(text) for text in texts]

    def _vector(self, text: str) -> NDArray[np.float32]:
        import numpy as np

        padded = f" {' '.join(text.lower().split())} "
        runs = [padded[at : at + n].encode() for n in (3, 4, 5) for at in range(max(1, len(padded) - n + 1))]
        hashes = np.array([zlib.crc32(run) for run in runs], dtype=np.uint32)
        signs = np.where(hashes >> 31, 1.0, -1.0)  # two runs in one place cancel as often as they add up
        sums = np.bincount(hashes % self.dimensions, weights=signs, minlength=self.dimensions)
        return sums.astype(np.float32)


class EndpointEmbedder:
    """Vectors of an OpenAI-compatible `/embeddings` endpoint, over the shared connections.

    Args:
        base_url: with the version, as in "https://api.openai.com/v1".
        model: the name of the embedding model.
        api_key: sent as a bearer token; never shown.
        timeout: seconds for a call.
        connections: None means `perfkit.connections`.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        timeout: float = 5.0,
        connections: ConnectionPool | None = None,
    ) -> None:
        from perfkit.transport import HTTPClient

        headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        self._client = HTTPClient(base_url, timeout, retries=1, headers=headers, connections=connections)
        self.model = model

    def __call__(self, texts: Sequence[str]) -> list[Any]:
        """Return a vector for each text.

        Raises:
            ProviderError: the endpoint refused, or what it sent is not one vector for each text.
            TransportError: it could not be reached in time.
        """
        reply = self._client.post("/embeddings", {"model": self.model, "input": list(texts)})
        if reply.status != _OK:
            raise ProviderError(f"the embeddings endpoint answered {reply.status}", status=reply.status)
        try:
            rows = sorted(reply.json()["data"], key=lambda row: row["index"])
            vectors = [row["embedding"] for row in rows]
        except (ValueError, KeyError, TypeError) as error:
            raise ResponseFormatError(f"the embeddings endpoint sent something else: {error!r}") from None
        if len(vectors) != len(texts):
            raise ResponseFormatError(f"the embeddings endpoint sent {len(vectors)} vectors for {len(texts)} texts")
        return vectors

    def __repr__(self) -> str:
        return f"EndpointEmbedder({self._client.base_url!r}, {self.model!r})"


class SentenceTransformerEmbedder:
    """Vectors of a model that sentence-transformers loads, on the first question.

    Args:
        model: a name or a directory; a name may be downloaded by that library.
        **options: further arguments of `SentenceTransformer`, such as `device`.

    Raises:
        ConfigError: sentence-transformers is not installed.
    """

    def __init__(self, model: str, **options: Any) -> None:
        if importlib.util.find_spec("sentence_transformers") is None:
            raise ConfigError("this embedder needs: pip install sentence-transformers", key="semantic.embedder")
        self._name, self._options = model, options
        self._model: Any = None

    def __call__(self, texts: Sequence[str]) -> Sequence[Any]:
        """Return a vector for each text."""
        if self._model is None:
            from sentence_transformers import SentenceTransformer

            self._model = SentenceTransformer(self._name, **self._options)
        vectors: Sequence[Any] = self._model.encode(list(texts))
        return vectors


EMBEDDERS = Registry(
    "embedder",
    {"hashed": HashedNgrams, "endpoint": EndpointEmbedder, "sentence-transformers": SentenceTransformerEmbedder},
)


def make_embedder(name: str, options: Mapping[str, Any]) -> Embed:
    """Return the embedder called `name`.

    Raises:
        UnknownNameError: there is none.
        ConfigError: it cannot be made from these options.
    """
    kind = EMBEDDERS.get(name)
    try:
        made: Embed = kind(**options)
    except TypeError as error:
        raise ConfigError(
            f"embedder {name!r} cannot be made: {error}; see [semantic] embedder_options", key="semantic.embedder"
        ) from None
    return made
