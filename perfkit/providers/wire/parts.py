"""Content parts as OpenAI writes them, taken apart for the formats that write them otherwise."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from perfkit.errors import BadRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Media", "arguments_of", "function_of", "media_of", "renamed", "schema_of", "text_of"]

_AUDIO = {"wav": "audio/wav", "mp3": "audio/mpeg"}


class Media(NamedTuple):
    """An image, a sound or a document: its bytes in base64, or the address it is at.

    Attributes:
        kind: "image", "audio" or "file".
        type: media type, for example "image/png"; empty where only an address is known.
        data: base64, empty when there is an address.
        url: address, empty when there is data.
        name: of a file, if told.
    """

    kind: str
    type: str
    data: str = ""
    url: str = ""
    name: str = ""


def media_of(part: Mapping[str, Any]) -> Media | None:
    """Return what a part shows or lets hear; None for text and for parts in a vendor's own form.

    Raises:
        BadRequestError: a data URL cannot be read.
    """
    kind = part.get("type")
    if kind == "image_url":
        told = part["image_url"]
        return _at("image", told if isinstance(told, str) else told["url"])
    if kind == "input_audio" and "input_audio" in part:
        told = part["input_audio"]
        return Media("audio", _AUDIO.get(told["format"], f"audio/{told['format']}"), told["data"])
    if kind == "file" and "file_data" in part.get("file", ()):
        return _at("file", part["file"]["file_data"])._replace(name=part["file"].get("filename", ""))
    return None


def _at(kind: str, url: str) -> Media:
    if not url.startswith("data:"):
        return Media(kind, "", url=url)
    head, comma, data = url.removeprefix("data:").partition(",")
    media_type, _, encoding = head.rpartition(";")
    if not comma or encoding != "base64" or not media_type:
        raise BadRequestError(f"{kind} part holds a data URL that is not data:<media type>;base64,<data>")
    return Media(kind, media_type, data)


def text_of(content: Any) -> str:
    """Return a content's text; parts that are no text add none."""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or ())


def arguments_of(call: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a tool call as the object they are the JSON of.

    Raises:
        BadRequestError: they are no JSON object.
    """
    function = call["function"]
    try:
        arguments = json.loads(function.get("arguments") or "{}")
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        raise BadRequestError(f"the arguments of tool call {call.get('id')!r} ({function['name']}) are no JSON object")
    return arguments


def function_of(tool: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the function of a tool written for OpenAI or for Anthropic; None for a vendor's built-in tool."""
    if "input_schema" in tool:
        return {key: tool[key] for key in ("name", "description", "strict") if key in tool} | {
            "parameters": tool["input_schema"]
        }
    return tool.get("function")


def schema_of(response_format: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the JSON schema asked for; None for "json_object", which wants any JSON.

    Raises:
        BadRequestError: it is another kind.
    """
    kind = response_format.get("type")
    if kind == "json_schema":
        schema: Mapping[str, Any] = response_format["json_schema"]["schema"]
        return schema
    if kind == "json_object":
        return None
    raise BadRequestError(f"response_format {kind!r} has no counterpart here; known: text, json_object, json_schema")


def renamed(extra: Mapping[str, Any], names: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the parameters of `extra` that have another name here, under it, and the rest as it is."""
    moved = {names[key]: value for key, value in extra.items() if key in names}
    return moved, {key: value for key, value in extra.items() if key not in names}
