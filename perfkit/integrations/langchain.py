"""LangChain: `ChatPerfkit` is a chat model that goes through perfkit, `PerfkitCache` its cache for other models.

Chains, agents and graphs use the chat model unchanged; providers, fallback, budgets and metrics are perfkit's.
"""

from __future__ import annotations

import asyncio
import json
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal

try:
    import langchain_core  # noqa: F401 - to say what to install
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("langchain_core is not installed; pip install 'perfkit[langchain]'") from error
from langchain_core.caches import BaseCache
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, message_to_dict, messages_from_dict
from langchain_core.messages.utils import convert_to_openai_messages
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, Generation
from langchain_core.runnables import RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict, Field, model_validator

from perfkit import _process
from perfkit.caching import ResponseCache
from perfkit.errors import nearest
from perfkit.integrations._langchain import last_chunk, structured, whole
from perfkit.integrations._langchain import tool_choice as named_choice
from perfkit.pipeline import Client
from perfkit.pipeline.scoping import current_scope
from perfkit.tokens import TokenOptimizer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Sequence

    from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
    from langchain_core.language_models import LanguageModelInput
    from langchain_core.messages import AIMessage, BaseMessage
    from langchain_core.runnables import Runnable

__all__ = ["ChatPerfkit", "PerfkitCache"]

TAG = "langchain"  # of what PerfkitCache keeps
CALLS = 64  # asynchronous calls at a time; asyncio's own threads are the number of cores and four
CONFIGURED = frozenset({"api_key", "base_url", "max_retries"})  # of other chat models: perfkit's configuration here


class _Threads:
    """Threads of asynchronous calls; made when there is something to do."""

    def __init__(self) -> None:
        self._after_fork()
        _process.bind(self)

    def _after_fork(self) -> None:
        self.pool = ThreadPoolExecutor(CALLS, "perfkit-langchain")  # without a thread until it has work


_threads = _Threads()


class ChatPerfkit(BaseChatModel):
    """A LangChain chat model whose calls are `perfkit.chat` and `perfkit.stream`.

    The fields are the parameters of `perfkit.chat`, None means its default; `policy` is its `cache`, `model_kwargs` are
    further ones, sent to the provider where `perfkit.chat` does not know them (`seed`, `top_p`). The answer's
    `response_metadata` says provider, cost in dollars (None: unknown), how it was cached, and the finish reason.

    Raises:
        What `perfkit.chat` raises; ValidationError: a parameter it has not.
    """

    model_config = ConfigDict(hide_input_in_errors=True)  # it may be a key

    model: str | None = None
    provider: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    timeout: float | None = None
    stop: list[str] | None = None
    streaming: bool = False
    policy: str | None = None
    user: str | None = None
    agent: str = "langchain"
    model_kwargs: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, values: dict[str, Any]) -> dict[str, Any]:
        for name in values.keys() - cls.model_fields.keys():
            if name not in CONFIGURED:
                told = f"ChatPerfkit has no parameter {name!r}{nearest(name, cls.model_fields)}"
                raise ValueError(f"{told}; what only the provider knows goes into model_kwargs={{...}}")
            warnings.warn(f"{name} is ignored: it is set in perfkit's configuration, not in ChatPerfkit", stacklevel=2)
        return values

    @property
    def _llm_type(self) -> str:
        return "perfkit"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return self._parameters({}, None)

    def bind_tools(
        self,
        tools: Sequence[Any],
        *,
        tool_choice: str | bool | dict[str, Any] | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return this model with `tools`, whatever LangChain can make an OpenAI tool of.

        Args:
            tools: functions, pydantic classes, LangChain tools or schemas.
            tool_choice: "auto", "none", "any" (as "required" and True: one of them has to be called), or a tool's name.
            strict: whether arguments have to match the schema exactly; None leaves it to the provider.
            **kwargs: further parameters of the calls.
        """
        if tool_choice:
            kwargs["tool_choice"] = named_choice(tool_choice)
        return self.bind(tools=[convert_to_openai_tool(tool, strict=strict) for tool in tools], **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        include_raw: bool = False,
        method: Literal["function_calling", "json_schema", "json_mode"] = "function_calling",
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Return a model that answers in the form of `schema`: objects of a pydantic class, dicts of other schemas.

        Args:
            schema: pydantic class, TypedDict, or JSON schema with a title.
            include_raw: return {"raw": the message, "parsed": the object or None, "parsing_error": an error or None}.
            method: as the arguments of a tool, as `response_format` with the schema, or as any JSON, which the prompt
                has to ask for and describe.
            strict: whether the provider has to keep to the schema exactly; None leaves it to the provider.
            **kwargs: further parameters of the calls.

        Raises:
            ValueError: there is no such method.
        """
        asked, parser = structured(schema, method, strict)
        told = {"kwargs": {"method": method, "strict": strict}, "schema": schema}
        model = self.bind(**asked, **kwargs, ls_structured_output_format=told)
        if not include_raw:
            return model | parser
        parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
        failed = RunnablePassthrough.assign(parsed=lambda _: None)
        return RunnableMap(raw=model) | parsed.with_fallbacks([failed], exception_key="parsing_error")

    def get_num_tokens(self, text: str) -> int:
        """Return the tokens of a text for this model."""
        return TokenOptimizer.instance().count_tokens(text, self.model)

    def get_num_tokens_from_messages(self, messages: Sequence[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """Return the tokens of a conversation, and of tools, for this model."""
        described = [convert_to_openai_tool(tool) for tool in tools or ()]
        counted = TokenOptimizer.instance().count_tokens(convert_to_openai_messages(messages), self.model)
        return counted + (self.get_num_tokens(json.dumps(described)) if described else 0)

    def _parameters(self, kwargs: dict[str, Any], stop: list[str] | None) -> dict[str, Any]:
        names = ("model", "provider", "temperature", "max_tokens", "timeout", "user", "agent")
        own = {"cache": self.policy, **{name: getattr(self, name) for name in names}, **self.model_kwargs}
        stop = stop if stop is not None else self.stop
        return {**own, **kwargs, **({"stop": stop} if stop else {})}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002 - part of the interface
        **kwargs: Any,
    ) -> ChatResult:
        asked = convert_to_openai_messages(messages)
        response = Client.instance().chat(asked, **self._parameters(kwargs, stop))
        return ChatResult(generations=[ChatGeneration(message=whole(response))])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002 - LangChain tells its callbacks itself
        **kwargs: Any,
    ) -> Generator[ChatGenerationChunk, None, None]:
        asked = convert_to_openai_messages(messages)
        with Client.instance().stream(asked, **self._parameters(kwargs, stop)) as stream:
            for text in stream:
                yield ChatGenerationChunk(message=AIMessageChunk(content=text))
        if stream.response is not None:
            yield ChatGenerationChunk(message=last_chunk(stream.response))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002 - part of the interface
        **kwargs: Any,
    ) -> ChatResult:
        work = partial(copy_context().run, self._generate, messages, stop, None, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(_threads.pool, work)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002 - as above
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        chunks, context, pool = self._stream(messages, stop, None, **kwargs), copy_context(), _threads.pool

        def step() -> ChatGenerationChunk | None:
            return next(chunks, None)

        begun = pool.submit(context.run, step)
        try:
            while (chunk := await asyncio.wrap_future(begun)) is not None:
                yield chunk
                begun = pool.submit(context.run, step)
        finally:  # a step that nobody waits for goes on in its thread, and the stream cannot be closed before it ends
            begun.add_done_callback(lambda _: pool.submit(context.run, chunks.close))


class PerfkitCache(BaseCache):
    """`perfkit.cache` as LangChain's cache: `set_llm_cache(PerfkitCache())`.

    Entries belong to user and tenant of the present `perfkit.scope`, and are shared where there is none.

    Args:
        cache: None means the shared one.
        ttl: seconds; None means the cache's own.
    """

    def __init__(self, cache: ResponseCache | None = None, *, ttl: float | None = None) -> None:
        self._cache = cache if cache is not None else ResponseCache.instance()
        self._ttl = ttl

    def lookup(self, prompt: str, llm_string: str) -> Sequence[Any] | None:
        """Return the generations kept for a prompt, or None."""
        key, user = _place(prompt, llm_string)
        kept = self._cache.get(key, scope=user)
        return None if kept is None else [_restored(one) for one in kept]

    def update(self, prompt: str, llm_string: str, return_val: Sequence[Any]) -> None:
        """Keep the generations of a prompt, if they can be written as JSON."""
        try:
            kept = [_kept(one) for one in return_val]
        except (TypeError, ValueError):
            return
        key, user = _place(prompt, llm_string)
        self._cache.set(key, kept, ttl=self._ttl, tags=[TAG], scope=user)

    def clear(self, **_: Any) -> None:
        """Remove what LangChain has kept here, of all users, and nothing else."""
        self._cache.invalidate(TAG)


def _place(prompt: str, llm_string: str) -> tuple[dict[str, str | None], str | None]:
    """Return the key of a prompt, and whose it is."""
    scope = current_scope()
    tenant, user = (None, None) if scope is None else (scope.tenant, scope.user)
    return {TAG: llm_string, "prompt": prompt, "tenant": tenant}, user() if callable(user) else user


def _kept(generation: Generation) -> str:
    message = message_to_dict(generation.message) if isinstance(generation, ChatGeneration) else None
    return json.dumps([generation.text, generation.generation_info, message])


def _restored(kept: str) -> Generation:
    text, info, message = json.loads(kept)
    if message is None:
        return Generation(text=text, generation_info=info)
    return ChatGeneration(message=messages_from_dict([message])[0], generation_info=info)
