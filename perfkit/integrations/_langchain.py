"""What LangChain says in perfkit's words, and perfkit in LangChain's: tools, forms of answers, messages, usage."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.messages.tool import invalid_tool_call, tool_call, tool_call_chunk
from langchain_core.output_parsers import JsonOutputKeyToolsParser, JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import PydanticToolsParser
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from langchain_core.runnables import Runnable

    from perfkit.values import ChatResponse

__all__ = ["last_chunk", "structured", "tool_choice", "whole"]


def tool_choice(choice: str | bool | dict[str, Any]) -> Any:
    """Return the choice of a tool as OpenAI writes it."""
    if choice in (True, "any"):
        return "required"
    if isinstance(choice, dict) or choice in ("auto", "none", "required"):
        return choice
    return {"type": "function", "function": {"name": choice}}


def structured(schema: Any, method: str, strict: bool | None) -> tuple[Mapping[str, Any], Runnable[Any, Any]]:
    """Return the parameters that ask for a form, and what reads the answer."""
    a_class = isinstance(schema, type) and is_basemodel_subclass(schema)
    if method == "function_calling":
        tool = convert_to_openai_tool(schema, strict=strict)
        name = tool["function"]["name"]
        asked = {"tools": [tool], "tool_choice": tool_choice(name)}
        if a_class:
            return asked, PydanticToolsParser(tools=[schema], first_tool_only=True)
        return asked, JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
    if method == "json_schema":
        told = convert_to_openai_tool(schema, strict=strict)["function"]
        form = {"name": told["name"], "schema": told["parameters"]} | ({} if strict is None else {"strict": strict})
        wanted: dict[str, Any] = {"type": "json_schema", "json_schema": form}
    elif method == "json_mode":
        wanted = {"type": "json_object"}
    else:
        raise ValueError(f"method must be function_calling, json_schema or json_mode, not {method!r}")
    return {"response_format": wanted}, PydanticOutputParser(pydantic_object=schema) if a_class else JsonOutputParser()


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
    if not isinstance(arguments, dict):
        return None
    return {"name": raw["function"]["name"], "args": arguments, "id": raw.get("id")}


def _unreadable(raw: Any) -> Any:
    called = raw["function"]
    return invalid_tool_call(name=called["name"], args=called["arguments"], id=raw.get("id"), error="no JSON object")


def whole(response: ChatResponse) -> AIMessage:
    """Return an answer as LangChain's message."""
    return AIMessage(
        content=response.text,
        tool_calls=[tool_call(**read) for raw in response.tool_calls if (read := _parsed(raw))],
        invalid_tool_calls=[_unreadable(raw) for raw in response.tool_calls if not _parsed(raw)],
        usage_metadata=_usage(response),
        response_metadata=_metadata(response),
    )


def last_chunk(response: ChatResponse) -> AIMessageChunk:
    """Return what follows the text of a stream: calls of tools, usage, and where the answer comes from."""
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
