"""LangChain: `ChatPerfkit` is a chat model that goes through perfkit, `PerfkitCache` its cache for other models.

Chains, agents and graphs use the chat model unchanged; providers, fallback, budgets and metrics are perfkit's.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

try:
    import langchain_core  # noqa: F401 - to say what to install
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("langchain_core is not installed; pip install 'perfkit[langchain]'") from error
from langchain_core.caches import BaseCache
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, message_to_dict, messages_from_dict
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.messages.tool import invalid_tool_call, tool_call, tool_call_chunk
from langchain_core.messages.utils import convert_to_openai_messages
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, Generation
from langchain_core.utils.function_calling import convert_to_openai_tool

from perfkit.caching import ResponseCache
from perfkit.pipeline import Client
from perfkit.pipeline.scoping import current_scope

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from langchain_core.callbacks import CallbackManagerForLLMRun
    from langchain_core.language_models import LanguageModelInput
    from langchain_core.messages import BaseMessage
    from langchain_core.runnables import Runnable

    from perfkit.values import ChatResponse

__all__ = ["ChatPerfkit", "PerfkitCache"]

TAG = "langchain"  # of what PerfkitCache keeps


class ChatPerfkit(BaseChatModel):
    """A LangChain chat model whose calls are `perfkit.chat` and `perfkit.stream`.

    The fields are the parameters of `perfkit.chat`, None means its default; `policy` is its `cache`. The answer's
    `response_metadata` says provider, cost in dollars (None: unknown), how it was cached, and the finish reason.

    Raises:
        What `perfkit.chat` raises.
    """

    model: str | None = None
    provider: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    timeout: float | None = None
    policy: str | None = None
    user: str | None = None
    agent: str = "langchain"

    @property
    def _llm_type(self) -> str:
        return "perfkit"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model, "provider": self.provider, "user": self.user, **self._parameters({}, None)}

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: str | None = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return this model with `tools`, whatever LangChain can make an OpenAI tool of."""
        if tool_choice is not None:
            named = {"type": "function", "function": {"name": tool_choice}}
            kwargs["tool_choice"] = "required" if tool_choice == "any" else named
        if tool_choice in ("auto", "none", "required"):
            kwargs["tool_choice"] = tool_choice
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    def _parameters(self, kwargs: dict[str, Any], stop: list[str] | None) -> dict[str, Any]:
        own = {"model": self.model, "provider": self.provider, "temperature": self.temperature}
        own |= {"max_tokens": self.max_tokens, "timeout": self.timeout, "cache": self.policy}
        return {**own, "user": self.user, "agent": self.agent, **kwargs, **({"stop": stop} if stop else {})}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002 - part of the interface
        **kwargs: Any,
    ) -> ChatResult:
        asked = convert_to_openai_messages(messages)
        response = Client.instance().chat(asked, **self._parameters(kwargs, stop))
        calls = [tool_call(**parsed) for raw in response.tool_calls if (parsed := _parsed(raw))]
        bad = [_unreadable(raw) for raw in response.tool_calls if not _parsed(raw)]
        message = AIMessage(
            content=response.text,
            tool_calls=calls,
            invalid_tool_calls=bad,
            usage_metadata=_usage(response),
            response_metadata=_metadata(response),
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002 - LangChain tells its callbacks itself
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        asked = convert_to_openai_messages(messages)
        with Client.instance().stream(asked, **self._parameters(kwargs, stop)) as stream:
            for text in stream:
                yield ChatGenerationChunk(message=AIMessageChunk(content=text))
        if stream.response is not None:
            yield ChatGenerationChunk(message=_last_chunk(stream.response))


class PerfkitCache(BaseCache):
    """`perfkit.cache` as LangChain's cache: `set_llm_cache(PerfkitCache())`.

    Entries are scoped to the user of the present `perfkit.scope`, and shared where there is none.

    Args:
        cache: None means the shared one.
        ttl: seconds; None means the cache's own.
    """

    def __init__(self, cache: ResponseCache | None = None, *, ttl: float | None = None) -> None:
        self._cache = cache if cache is not None else ResponseCache.instance()
        self._ttl = ttl

    def lookup(self, prompt: str, llm_string: str) -> Sequence[Any] | None:
        """Return the generations kept for a prompt, or None."""
        kept = self._cache.get(_key(prompt, llm_string), scope=_whose())
        return None if kept is None else [_restored(one) for one in kept]

    def update(self, prompt: str, llm_string: str, return_val: Sequence[Any]) -> None:
        """Keep the generations of a prompt, if they can be written as JSON."""
        try:
            kept = [_kept(one) for one in return_val]
        except (TypeError, ValueError):
            return
        self._cache.set(_key(prompt, llm_string), kept, ttl=self._ttl, tags=[TAG], scope=_whose())

    def clear(self, **_: Any) -> None:
        """Remove what LangChain has kept here, of all users, and nothing else."""
        self._cache.invalidate(TAG)


def _key(prompt: str, llm_string: str) -> dict[str, str]:
    return {TAG: llm_string, "prompt": prompt}


def _kept(generation: Generation) -> str:
    message = message_to_dict(generation.message) if isinstance(generation, ChatGeneration) else None
    return json.dumps([generation.text, generation.generation_info, message])


def _restored(kept: str) -> Generation:
    text, info, message = json.loads(kept)
    if message is None:
        return Generation(text=text, generation_info=info)
    return ChatGeneration(message=messages_from_dict([message])[0], generation_info=info)


def _whose() -> str | None:
    scope = current_scope()
    if scope is None:
        return None
    return scope.user() if callable(scope.user) else scope.user


def _usage(response: ChatResponse) -> UsageMetadata:
    usage = response.usage
    return UsageMetadata(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        input_token_details=InputTokenDetails(cache_read=usage.cached_tokens, cache_creation=usage.cache_write_tokens),
        output_token_details=OutputTokenDetails(reasoning=usage.reasoning_tokens),
    )


def _metadata(response: ChatResponse) -> dict[str, Any]:
    return {
        "model_name": response.model,
        "provider": response.provider,
        "cost": response.cost,
        "cached": response.cached,
        "finish_reason": response.finish_reason,
    }


def _parsed(raw: Any) -> dict[str, Any] | None:
    try:
        arguments = json.loads(raw["function"]["arguments"] or "{}")
    except ValueError:
        return None
    return {"name": raw["function"]["name"], "args": arguments, "id": raw.get("id")}


def _unreadable(raw: Any) -> Any:
    called = raw["function"]
    return invalid_tool_call(name=called["name"], args=called["arguments"], id=raw.get("id"), error="no JSON object")


def _last_chunk(response: ChatResponse) -> AIMessageChunk:
    calls = [
        tool_call_chunk(name=raw["function"]["name"], args=raw["function"]["arguments"], id=raw.get("id"), index=place)
        for place, raw in enumerate(response.tool_calls)
    ]
    return AIMessageChunk(
        content="",
        tool_call_chunks=calls,
        usage_metadata=_usage(response),
        response_metadata=_metadata(response),
        chunk_position="last",
    )
