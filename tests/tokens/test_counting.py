from __future__ import annotations

import hashlib
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from perfkit.tokens import counting
from perfkit.tokens.counting import TokenCounter, tokenizer_of
from perfkit.tokens.estimator import Mix, estimate, measure

if TYPE_CHECKING:
    from pathlib import Path

VOCABULARY = b"a vocabulary"
# A stand-in for tiktoken: a text's length are its tokens, and every load is written down.
TIKTOKEN = """
loads = []
class Encoding:
    def encode_ordinary(self, text):
        return list(text)
def get_encoding(name):
    loads.append(name)
    return Encoding()
"""


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("counting tokens opened a socket")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return tiktoken's cache directory, empty, with tiktoken's stand-in installed."""
    (tmp_path / "tiktoken.py").write_text(TIKTOKEN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tiktoken", raising=False)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    name, file_name, _ = counting._VOCABULARIES["o200k"]
    digest = hashlib.sha256(VOCABULARY).hexdigest()
    monkeypatch.setitem(counting._VOCABULARIES, "o200k", (name, file_name, digest))
    return tmp_path / file_name


def loads() -> list[str]:
    module = sys.modules.get("tiktoken")
    return list(module.loads) if module is not None else []


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gpt-4o-mini", ("o200k", 1.0)),
        ("gpt-4.1", ("o200k", 1.0)),
        ("gpt-6.1-sol", ("o200k", 1.0)),
        ("gpt-4-turbo", ("cl100k", 1.0)),
        ("gpt-3.5-turbo", ("cl100k", 1.0)),
        ("claude-3-5-sonnet-20241022", ("claude2", 1.0)),
        ("claude-opus-4-20250514", ("claude2", 1.0)),
        ("claude-opus-4-1-20250805", ("claude2", 1.0)),
        ("claude-opus-4-7", ("claude2", 1.3)),
        ("anthropic/claude-sonnet-5-5", ("claude2", 1.3)),
        ("deepseek-v4-flash", ("deepseek", 1.0)),
        ("Mistral-Large-Latest", ("tekken", 1.0)),
        ("some-new-model", ("o200k", 1.0)),
        (None, ("o200k", 1.0)),
    ],
)
def test_model_is_counted_by_the_tokenizer_nearest_to_its_own(model: str | None, expected: tuple[str, float]) -> None:
    assert tokenizer_of(model) == expected


def test_newer_claude_models_read_thirty_percent_more() -> None:
    text, counter = "The quick brown fox jumps over the lazy dog. " * 10, TokenCounter()
    assert counter.count(text, "claude-sonnet-5-5") == pytest.approx(1.3 * counter.count(text, "claude-3-opus"), abs=1)


def test_exact_counts_are_used_when_the_vocabulary_is_on_disk(cache: Path) -> None:
    cache.write_bytes(VOCABULARY)
    counter = TokenCounter()
    assert counter.count("abc", "gpt-4o") == 3
    assert counter.count("x" * 500, "gpt-5") == 500
    assert loads() == ["o200k_base"]


def test_missing_vocabulary_is_estimated_and_never_loaded(cache: Path) -> None:
    assert TokenCounter().count("hello world", "gpt-4o") == estimate("hello world")
    assert loads() == []


def test_damaged_vocabulary_is_estimated_and_never_loaded(cache: Path) -> None:
    cache.write_bytes(VOCABULARY[:-1])
    assert TokenCounter().count("hello world", "gpt-4o") == estimate("hello world")
    assert loads() == []


def test_cache_switched_off_means_estimates(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.write_bytes(VOCABULARY)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    assert TokenCounter().count("hello world", "gpt-4o") == estimate("hello world")
    assert loads() == []


def test_default_cache_directory_is_the_one_tiktoken_uses(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR")
    monkeypatch.delenv("DATA_GYM_CACHE_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(cache.parent))
    (cache.parent / "data-gym-cache").mkdir()
    (cache.parent / "data-gym-cache" / cache.name).write_bytes(VOCABULARY)
    assert TokenCounter().count("abc", "gpt-4o") == 3


def test_broken_tiktoken_means_estimates(cache: Path) -> None:
    cache.write_bytes(VOCABULARY)
    (cache.parent / "tiktoken.py").write_text("raise ImportError('built for another Python')")
    assert TokenCounter().count("hello world", "gpt-4o") == estimate("hello world")


def test_claude_is_never_counted_by_an_openai_vocabulary(cache: Path) -> None:
    cache.write_bytes(VOCABULARY)
    assert TokenCounter().count("hello world", "claude-3-opus") == estimate("hello world", "claude2")
    assert loads() == []


def test_vocabulary_is_loaded_once_by_many_threads(cache: Path) -> None:
    cache.write_bytes(VOCABULARY)
    counter, barrier = TokenCounter(), threading.Barrier(8)

    def count(_: int) -> int:
        barrier.wait()
        return counter.count("abc", "gpt-4o")

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(count, range(8))) <= {3, estimate("abc")}
    assert loads() == ["o200k_base"]


def test_growing_chat_counts_each_message_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[str] = []

    def spy(text: str, tokenizer: str) -> Mix:
        counted.append(text)
        return measure(text, tokenizer)

    monkeypatch.setattr(counting, "measure", spy)
    counter, chat, totals = TokenCounter(), [], []
    for turn in range(40):
        chat.append({"role": "user" if turn % 2 else "assistant", "content": f"turn {turn}: " + "so it goes " * 30})
        totals.append(counter.messages(chat))
    assert len(counted) == 40
    assert totals == sorted(set(totals))
    assert totals[-1] == TokenCounter().messages(chat)


def test_memo_keeps_no_text_alive_and_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "MEMO_ENTRIES", 10)
    counter = TokenCounter()
    for number in range(50):
        counter.count(f"{number} " * 100)
    assert len(counter._memo) == 10
    assert not any("49 49" in str(key) for key in counter._memo)


def test_counter_works_in_a_child_forked_while_the_lock_was_held() -> None:
    counter = TokenCounter()
    counter._lock.acquire()
    counter.after_fork()
    assert counter.count("hello world " * 50) > 0


def test_chat_costs_four_tokens_a_message_and_three_to_prime_the_reply() -> None:
    counter = TokenCounter()
    one, two = counter.count("Be brief."), counter.count("What is the time in Oslo?")
    chat: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is the time in Oslo?"},
    ]
    assert counter.messages(chat) == one + two + 2 * 4 + 3
    assert counter.messages([{**chat[0], "name": "ops"}]) == one + 4 + 3 + 1 + counter.count("ops")


def test_tool_calls_of_earlier_turns_are_counted() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "clock", "arguments": '{"city": "Oslo"}'}}
    counter = TokenCounter()
    with_call = counter.messages([{"role": "assistant", "content": None, "tool_calls": [call]}])
    assert with_call == 4 + 3 + counter.as_json(call["function"])


def test_picture_whose_size_is_not_known_counts_as_one_of_1024_pixels() -> None:
    counter, small, large = TokenCounter(), "data:image/png;base64,AAAA", "data:image/png;base64," + "A" * 100_000
    chats = [[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": u}}]}] for u in (small, large)]
    assert [counter.messages(chat) for chat in chats] == [765 + 7] * 2


def test_text_and_tool_result_parts_are_counted_as_their_text() -> None:
    counter, text = TokenCounter(), "It is noon in Oslo."
    parts = [{"type": "text", "text": text}, {"type": "tool_result", "tool_use_id": "1", "content": text}, text]
    assert counter.messages([{"role": "user", "content": parts}]) == 3 * counter.count(text) + 7


def test_tools_are_counted_as_their_schemas() -> None:
    tool = {"type": "function", "function": {"name": "clock", "description": "Tell the time", "parameters": {}}}
    counter = TokenCounter()
    assert counter.tools([tool, tool]) == 2 * counter.as_json(tool) + 9
    assert counter.tools(None) == counter.tools([]) == 0
