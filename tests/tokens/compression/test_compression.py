from __future__ import annotations

import json
import random
import uuid
from collections.abc import Generator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfkit.errors import UnknownNameError
from perfkit.tokens.compression import Aliases, Compressed, compress, extractive, llmlingua
from perfkit.tokens.estimator import estimate
from perfkit.values import ChatResponse, Usage


def shorter(text: str, **more: Any) -> Compressed:
    return compress(text, count=estimate, **more)


ORDERS = [{"order": n, "customer": f"name {n}", "total": n * 1.5, "paid": n % 2 == 0} for n in range(30)]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.dictionaries(st.text(max_size=6), inner, max_size=5)
        | st.builds(
            lambda keys, rows: [dict(zip(keys, row, strict=False)) for row in rows],
            st.lists(st.text(max_size=5), min_size=3, max_size=3, unique=True),
            st.lists(st.lists(inner, min_size=3, max_size=3), max_size=5),
        )
    ),
    max_leaves=30,
)


@settings(max_examples=60)
@given(JSON, st.sampled_from([None, 1, 4]), st.booleans())
def test_json_comes_back_the_same(value: Any, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    found = shorter(text)
    assert found.exact
    assert json.loads(found.original()) == value


def payload(rng: random.Random, depth: int = 0) -> Any:
    """Return what a tool may answer with: records in lists, nested objects, texts of several scripts."""
    kind = rng.randrange(3 if depth > 2 else 6)
    if kind == 0:
        return rng.choice(
            [
                None,
                True,
                False,
                rng.random(),
                rng.randrange(-(10**12), 10**12),
                str(uuid.UUID(int=rng.getrandbits(128))),
            ]
        )
    if kind < 3:
        return "".join(rng.choice('ab "\\/\n\t{}[]:,éß日本語😀\ud800id0') for _ in range(rng.randrange(30)))
    keys = [payload_key(rng) for _ in range(rng.randrange(1, 5))]
    if kind == 3:
        return {key: payload(rng, depth + 1) for key in keys}
    if kind == 4:
        return [{key: payload(rng, depth + 1) for key in keys} for _ in range(rng.randrange(6))]
    return [payload(rng, depth + 1) for _ in range(rng.randrange(5))]


def payload_key(rng: random.Random) -> str:
    return rng.choice(["id", "name", "größe", "cols", "rows", "a b", "", "x1"])


def test_a_thousand_payloads_come_back_the_same() -> None:
    rng, changed = random.Random(11), 0
    for number in range(1000):
        value = payload(rng)
        text = json.dumps(value, indent=rng.choice([None, 1, 4]), ensure_ascii=number % 2 == 0)
        found = shorter(text, steps=("html", "columns", "json", "lines", "uuids"))
        assert json.loads(found.original()) == value
        changed += bool(found.steps)
    assert changed > 300


WORDS = st.sampled_from(["a line above forty characters, that is worth a reference", "short", "", "another one " * 5])


@settings(max_examples=80)
@given(st.lists(WORDS | st.text(st.characters(exclude_characters="\n"), max_size=60), max_size=30))
def test_text_comes_back_the_same(lines: list[str]) -> None:
    text = "\n".join(lines)
    found = shorter(text, steps=("lines", "uuids"))
    assert found.original() == text


@settings(max_examples=60)
@given(st.lists(st.uuids().map(str) | st.sampled_from(["uid3", "and", "ref", "x1 x2", "key"]), max_size=20))
def test_uuids_come_back_the_same(words: list[str]) -> None:
    text = " ".join(words)
    assert shorter(text, steps=("uuids",)).original() == text


def test_result_is_a_pair_of_text_and_saved_tokens() -> None:
    text, saved = shorter(json.dumps(ORDERS))
    assert saved == estimate(json.dumps(ORDERS)) - estimate(text) > 0
    assert json.loads(text)["cols"] == ["order", "customer", "total", "paid"]


@pytest.mark.parametrize(
    ("number", "kept"), [("1.10", "1.10"), ("1e400", "1e400"), ("12345678901234567890.5", "12345678901234567890.5")]
)
def test_numbers_stay_as_they_are_written(number: str, kept: str) -> None:
    text = f'[{{"a": {number},   "b": "x"}},   {{"a": {number}, "b": "y"}},   {{"a": {number}, "b": "z"}}]'
    assert kept in shorter(text).text
    assert kept in shorter(text).original()


@pytest.mark.parametrize(
    "text",
    [
        '{"cols": ["a"],   "rows": [[1],   [2]]}',
        '[{"cols": 1, "rows": 2},    {"cols": 3, "rows": 4}]',
        '{"a": 1,   "a": 2}',
    ],
)
def test_what_could_not_be_told_apart_is_not_put_into_columns(text: str) -> None:
    found = shorter(text)
    assert "columns" not in found.steps
    assert json.loads(found.original()) == json.loads(text)


def test_table_of_ones_own_stays_a_table_beside_lists_that_could_be_columns() -> None:
    value = {"orders": ORDERS, "table": {"cols": ["a", "b"], "rows": [[1, 2], [3, 4]]}}
    assert json.loads(shorter(json.dumps(value)).original()) == value


def test_ascii_escapes_are_written_as_what_they_mean() -> None:
    text = json.dumps({"city": "Zürich", "greeting": "こんにちは世界", "lone": "\ud800"})
    found = shorter(text)
    assert "こんにちは世界" in found.text
    assert json.loads(found.text) == json.loads(text)


@pytest.mark.parametrize("text", ["", "plain words", "{not json}", "[1, 2", "[" * 100_000, "{" * 5])
def test_what_is_not_json_stays(text: str) -> None:
    assert shorter(text) == (text, 0)


def test_repeated_passages_are_told_once() -> None:
    passage = [f"this is line {n} of a passage that two documents share word by word" for n in range(4)]
    text = "\n".join(["first document", *passage, "second document", *passage, "end"])
    found = shorter(text)
    assert found.text.endswith("second document\n[as lines 2-5]\nend")
    assert found.original() == text


def test_html_becomes_what_a_reader_sees() -> None:
    page = """<!DOCTYPE html><html><head><title>x</title><style>p {}</style></head><body><h1>Prices &amp; terms</h1>
    <p>One <b>two</b>  three</p><ul><li>first</li><li><a href="https://a.example/b">second</a></li></ul>
    <script>track()</script><table><tr><td>A</td><td>1</td></tr></table></body></html>"""
    found = shorter(page)
    assert found.text.split("\n") == [
        "Prices & terms", "One two three", "- first", "- second (https://a.example/b)", "A | 1"
    ]  # fmt: skip
    assert not found.exact


def test_aliases_are_restored_in_text_and_tool_calls() -> None:
    one, two = (str(uuid.UUID(int=n)) for n in (1, 2))
    aliases = Aliases()
    found = shorter(f"orders {one} and {two}, then {one}", steps=("uuids",), aliases=aliases)
    assert found.text == "orders uid0 and uid1, then uid0"
    assert aliases.shorten(f"again {two}") == "again uid1"
    call = {"id": "c", "type": "function", "function": {"name": "cancel", "arguments": '{"order": "uid1"}'}}
    answer = ChatResponse("I cancelled uid0, not uid7.", Usage(1, 1), "m", "p", tool_calls=(call,))
    restored = aliases.restore_response(answer)
    assert restored.text == f"I cancelled {one}, not uid7."
    assert restored.tool_calls[0]["function"]["arguments"] == f'{{"order": "{two}"}}'
    assert answer.tool_calls[0]["function"]["arguments"] == '{"order": "uid1"}'


def test_alias_never_takes_a_word_the_text_uses() -> None:
    found = shorter(f"uid1 is not {uuid.UUID(int=5)}", steps=("uuids",))
    assert found.text == "uid1 is not ref0"


def test_unknown_step_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'lines'"):
        shorter("x", steps=("line",))


def test_lossy_compression_is_done_only_when_asked_for() -> None:
    text = "The cache is fast. " * 3 + "The pump of building seven leaks oil. " + "The cache is fast. " * 3
    assert shorter(text, steps=()) == (text, 0)
    found = shorter(text, steps=(), lossy=extractive(0.4, question="Which pump leaks?"))
    assert "pump of building seven" in found.text
    assert len(found.text) <= 0.4 * len(text)
    assert found.steps == ("lossy",)
    assert not found.exact


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1.0])
def test_extract_keeps_its_share_and_the_order(share: float) -> None:
    rng = random.Random(1)
    sentences = [
        f"Sentence {n} tells of {rng.choice(['cats', 'dogs', 'cows'])} and {rng.random():.3f}. " for n in range(40)
    ]
    kept = extractive(share)("".join(sentences))
    assert len(kept) <= share * len("".join(sentences))
    numbers = [int(sentence.split()[1]) for sentence in kept.split("Sentence")[1:] for sentence in [f"S {sentence}"]]
    assert numbers == sorted(numbers)
    if share == 1.0:
        assert len(numbers) == 40


def test_llmlingua_is_asked_the_way_it_wants_to_be() -> None:
    asked: dict[str, Any] = {}

    class PromptCompressor:
        """The signature of llmlingua 0.2.2."""

        def compress_prompt(
            self, context: list[str], instruction: str = "", question: str = "", rate: float = 0.5, **options: Any
        ) -> dict[str, Any]:
            asked.update(context=context, question=question, rate=rate, **options)
            return {"compressed_prompt": "short", "origin_tokens": 100, "compressed_tokens": 1}

    lossy = llmlingua(PromptCompressor(), rate=0.3, question="why?", force_tokens=["\n"])
    assert shorter("long " * 50, lossy=lossy).text == "short"
    more = {"force_tokens": ["\n"], "concate_question": False}
    assert asked == {"context": ["long " * 50], "question": "why?", "rate": 0.3, **more}


def streamed(pieces: list[str], response: ChatResponse) -> Generator[str, None, ChatResponse]:
    yield from pieces
    return response


def test_restored_stream_is_the_restored_text_however_it_is_cut() -> None:
    rng, aliases = random.Random(5), Aliases()
    aliases.shorten(" ".join(str(uuid.UUID(int=n)) for n in range(12)))
    for _ in range(300):
        words = rng.choices(
            ["uid1", "uid11", "uid12", "fluid1", "uid", "u", "id3", " ", ", ", "é", "1", "ui\n", ""], k=12
        )
        text = "".join(words)
        cuts = sorted(rng.choices(range(len(text) + 1), k=rng.randrange(8)))
        pieces = [text[begin:end] for begin, end in pairwise([0, *cuts, len(text)])]
        restored = aliases.restore_stream(streamed(pieces, ChatResponse(text, Usage(1, 1), "m", "p")))
        assert "".join(restored) == aliases.restore(text)


def test_a_stream_is_held_back_by_no_more_than_a_word() -> None:
    aliases = Aliases()
    aliases.shorten(str(uuid.UUID(int=7)))
    pieces = ["The", " order", " u", "id0", " is", " up"]
    restored = aliases.restore_stream(streamed(pieces, ChatResponse("".join(pieces), Usage(1, 1), "m", "p")))
    assert list(restored) == ["The", " order", " ", f"{uuid.UUID(int=7)} is", " up"]
