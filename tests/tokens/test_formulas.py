"""Pictures and tools, by the examples in the vendors' guides."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import pytest

from perfkit.tokens.counting import TokenCounter
from perfkit.tokens.formulas import as_json, picture_tokens, tool_pieces
from perfkit.tokens.pictures import HEAD, size_of

WEATHER: dict[str, Any] = {  # OpenAI's cookbook, "How to count tokens with tiktoken", part 7
    "type": "function",
    "function": {
        "name": "get_current_weather",
        "description": "Get the current weather in a given location",
        "parameters": {
            "type": "object",
            "properties": {
                "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
                "unit": {
                    "type": "string",
                    "description": "The unit of temperature to return",
                    "enum": ["celsius", "fahrenheit"],
                },
            },
            "required": ["location"],
        },
    },
}


def png(width: int, height: int) -> bytes:
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))


def jpeg(width: int, height: int, before: int = 100) -> bytes:
    frame = b"\xff\xc0" + struct.pack(">HBHH", 17, 8, height, width)
    segments = [b"\xff\xe1" + struct.pack(">H", before + 2) + b"\0" * before] * 3
    return b"\xff\xd8" + b"".join(segments) + frame + b"\0" * 50


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\0" * 9


def webp(width: int, height: int) -> bytes:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF\0\0\0\0WEBPVP8X" + b"\0" * 8 + size


def linked(data: bytes, detail: str = "auto") -> dict[str, Any]:
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    return {"type": "image_url", "image_url": {"url": url, "detail": detail}}


@pytest.mark.parametrize("made", [png, jpeg, gif, webp])
def test_size_is_read_from_the_head_of_the_file(made: Any) -> None:
    assert size_of(linked(made(640, 481))) == (640, 481)
    source = {"type": "base64", "data": base64.b64encode(made(640, 481)).decode()}
    assert size_of({"type": "image", "source": source}) == (640, 481)


def test_webp_of_all_kinds_is_read() -> None:
    lossy = b"RIFF\0\0\0\0WEBPVP8 " + b"\0" * 10 + struct.pack("<HH", 640, 481)
    lossless = b"RIFF\0\0\0\0WEBPVP8L" + b"\0" * 4 + b"\x2f" + (639 | 480 << 14).to_bytes(4, "little")
    assert size_of(linked(lossy)) == size_of(linked(lossless)) == (640, 481)


@pytest.mark.parametrize("data", [b"", b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"not a picture", jpeg(9, 9, 60_000)])
def test_what_is_no_whole_head_has_no_size(data: bytes) -> None:
    assert size_of(linked(data)) is None
    assert picture_tokens(linked(data), "gpt-4o") == 765


def test_of_a_large_file_only_the_head_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    decode = base64.b64decode

    def spy(text: str) -> bytes:
        read.append(len(text))
        return decode(text)

    monkeypatch.setattr(base64, "b64decode", spy)
    assert size_of(linked(png(640, 480) + b"\0" * 10**6)) == (640, 480)
    assert read == [HEAD]


@pytest.mark.parametrize(
    ("model", "size", "detail", "tokens"),
    [
        ("gpt-4o", (1024, 1024), "high", 765),
        ("gpt-4o", (2048, 4096), "high", 1105),
        ("gpt-4o", (4096, 8192), "low", 85),
        ("gpt-4o-mini", (1024, 1024), "high", 25501),
        ("gpt-4.1-mini", (1024, 1024), "auto", 1659),
        ("o4-mini", (1800, 2400), "auto", 2498),
        ("claude-sonnet-4-5", (200, 200), "auto", 54),
        ("claude-sonnet-4-5", (1000, 1000), "auto", 1334),
        ("claude-sonnet-4-5", (1092, 1092), "auto", 1590),
        ("claude-sonnet-4-5", (8000, 8000), "auto", 1600),
        ("gemini-2.5-flash", (384, 300), "auto", 258),
        ("gemini-2.5-flash", (960, 540), "auto", 516),
    ],
)
def test_pictures_cost_what_the_guides_say(model: str, size: tuple[int, int], detail: str, tokens: int) -> None:
    """OpenAI: 1,452 patches for 1800 x 2400; Anthropic: about 54, 1,334 and 1,590 tokens for its three squares."""
    assert picture_tokens(linked(png(*size), detail), model) == tokens


def test_openai_counts_tools_as_in_its_cookbook() -> None:
    """With tiktoken's vocabularies this is its 105 tokens for gpt-3.5-turbo and gpt-4, and its 101 for gpt-4o."""
    fixed, text = 0, ""
    for piece in tool_pieces([WEATHER], "gpt-4o"):
        fixed, text = (fixed + piece, text) if isinstance(piece, int) else (fixed, text + piece)
    lines = text.split("\n")
    assert lines == [
        "get_current_weather:Get the current weather in a given location",
        "location:string:The city and state, e.g. San Francisco, CA",
        "celsius",
        "fahrenheit",
        "unit:string:The unit of temperature to return",
    ]
    assert fixed == 7 + 3 + 2 * 3 - 3 + 2 * 3 + 12 - (len(lines) - 1)
    old = sum(piece for piece in tool_pieces([WEATHER], "gpt-4-0613") if isinstance(piece, int))
    assert old == fixed + 3


def test_properties_inside_others_are_counted_too() -> None:
    inner = {"type": "object", "properties": {"street": {"type": "string"}}}
    parameters = {"type": "object", "properties": {"to": inner, "all": {"type": "array", "items": inner}}}
    [_, fixed, text] = tool_pieces([{"name": "send", "parameters": parameters}], "gpt-5")
    assert str(text).count("street:string") == 2
    assert fixed == 7 + 3 * 3 + 4 * 3 - (len(str(text).split("\n")) - 1)


@pytest.mark.parametrize(
    ("model", "choice", "tokens"),
    [
        ("claude-opus-4-8", None, 290),
        ("claude-opus-4-8", {"type": "any"}, 410),
        ("claude-sonnet-4-5", "auto", 496),
        ("claude-opus-4-1", "required", 315),
        ("claude-3-7-sonnet", "none", 346),
        ("claude-sonnet-5", "auto", 354),
        ("claude-of-tomorrow", "auto", 354),
    ],
)
def test_claude_has_a_system_prompt_for_tools(model: str, choice: Any, tokens: int) -> None:
    assert tool_pieces([WEATHER], model, choice) == [tokens, as_json(WEATHER)]
    counter = TokenCounter()
    messages = [{"role": "user", "content": "hi"}]
    with_tools = counter.prompt(messages, model, [WEATHER], None, choice).tokens
    assert with_tools - counter.messages(messages, model) == tokens + counter.as_json(WEATHER, model)


def test_no_tools_cost_nothing() -> None:
    assert tool_pieces(None, "claude-opus-4-8") == tool_pieces([], "gpt-4o") == []
