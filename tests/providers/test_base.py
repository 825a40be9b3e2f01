from __future__ import annotations

from typing import Any

import pytest
from providers.asking import asked

from perfkit.errors import ConfigError
from perfkit.providers import Provider
from perfkit.values import ChatRequest, ChatResponse, Usage


class Parrot(Provider):
    """The least a custom provider writes."""

    def chat_completion(self, request: ChatRequest) -> ChatResponse:
        return ChatResponse(str(request.messages[-1]["content"]), Usage(1, 1), request.model, self.name)


def test_one_method_makes_a_provider() -> None:
    parrot = Parrot("polly", models=["a", "b"])
    assert parrot.supported_models == frozenset({"a", "b"})
    assert parrot.list_models() == ["a", "b"]
    parrot.validate()
    parrot.close()
    assert repr(parrot) == "Parrot('polly')"


def test_what_cannot_stream_streams_in_one_piece() -> None:
    stream = Parrot("polly").stream(asked("hi"))
    assert next(stream) == "hi"
    with pytest.raises(StopIteration) as end:
        next(stream)
    assert end.value.value.text == "hi"


def test_no_models_means_any() -> None:
    assert Parrot("polly").supported_models is None
    assert Parrot("polly").list_models() == []
    assert Parrot("polly", models=()).supported_models == frozenset()


@pytest.mark.parametrize("models", ["gpt-4", 5, [1], [""]])
def test_models_that_are_no_list_of_names_are_refused(models: Any) -> None:
    with pytest.raises(ConfigError, match="models of provider 'polly'"):
        Parrot("polly", models=models)


@pytest.mark.parametrize("name", ["", None, 5])
def test_a_provider_needs_a_name(name: Any) -> None:
    with pytest.raises(ConfigError, match="name"):
        Parrot(name)
