from __future__ import annotations

import json
import sys
import zlib
from typing import Any

import pytest
from _parts import needs_module
from hypothesis import given
from hypothesis import strategies as st

from perfkit._settings import CacheSettings
from perfkit.caching.codec import Codec
from perfkit.caching.entry import Entry, Life, keep
from perfkit.clock import FakeClock
from perfkit.errors import ConfigError
from perfkit.values import Attempt, ChatResponse, Usage

TRIED = Attempt("p", "m", 1.0, 0.1, "ok")
ANSWER = ChatResponse("hé \ud800", Usage(1, 2), "m", "p", ({"id": "1"},), 0.5, attempts=(TRIED,), raw={"a": [1.5]})


def entry(value: Any, clock: FakeClock, key: str = "key") -> Entry:
    life = Life(60.0, 30.0, 10.0)
    return Entry(
        key, keep(value), life, now=clock.now(), stored_at=clock.wall(), tags=frozenset({"b", "a"}), seconds=2.5
    )


def codec(clock: FakeClock, **settings: Any) -> Codec:
    return Codec.of(CacheSettings(**settings), clock)


@pytest.mark.parametrize("compression", ["none", "zlib", "zstd"])
@pytest.mark.parametrize("value", [ANSWER, None, 0, "x" * 5000, {"a": [1, 1.0, True, None]}])
def test_an_entry_comes_back_whole(compression: str, value: Any) -> None:
    if compression == "zstd":
        needs_module("backports.zstd" if sys.version_info < (3, 14) else "compression.zstd")
    clock = FakeClock()
    one = codec(clock, compression=compression)
    data = one.encode(entry(value, clock))
    clock.advance(20)
    back = one.decode("key", data)
    assert back is not None
    assert repr(back.value) == repr(value)
    assert (back.tags, back.seconds, back.stored_at) == (frozenset("ab"), 2.5, clock.wall() - 20)
    assert (back.expires, back.stale_until) == (clock.now() + 40, clock.now() + 70)


def test_what_is_gone_does_not_come_back() -> None:
    clock = FakeClock()
    one = codec(clock)
    data = one.encode(entry("old", clock))
    clock.advance(89)
    assert one.decode("key", data) is not None
    clock.advance(1)
    assert one.decode("key", data) is None


@pytest.mark.parametrize(("ahead", "found"), [(30, True), (3600, False)])
def test_what_a_clock_far_ahead_has_written_is_not_young_for_ever(ahead: float, *, found: bool) -> None:
    clock = FakeClock()
    other = FakeClock(wall=clock.wall() + ahead)
    assert (codec(clock).decode("key", codec(other).encode(entry(1, other))) is not None) == found


def test_bytes_copied_to_another_key_are_not_served_there() -> None:
    clock = FakeClock()
    one = codec(clock)
    assert one.decode("other", one.encode(entry("anna's", clock))) is None


@given(st.binary(max_size=60))
def test_garbage_is_nothing(data: bytes) -> None:
    one = codec(FakeClock())
    for form in (b"", b"pk1", b"pk1j", b"pk1z", b"pk1s", b"pk1e"):
        assert one.decode("key", form + data) is None


def test_every_cut_and_every_changed_byte_of_a_compressed_envelope_is_nothing_or_the_same() -> None:
    clock = FakeClock()
    one = codec(clock, compression="zlib", compress_above=0)
    whole = one.encode(entry({"a": "b" * 50}, clock))
    assert [one.decode("key", whole[:end]) for end in range(len(whole))] == [None] * len(whole)
    for at in range(len(whole)):
        found = one.decode("key", whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert found is None or found.value == {"a": "b" * 50}


def test_another_version_and_wrong_kinds_are_nothing() -> None:
    clock = FakeClock()
    one = codec(clock)
    good = json.loads(one.encode(entry("x", clock))[4:])
    wrong: list[dict[str, Any]] = [
        {"at": "now"}, {"life": [float("nan"), 0, 0]}, {"life": [-1, 0, 0]}, {"kind": "chat"},
        {"kind": "chat", "value": {"text": 1, "usage": {}, "model": "m", "provider": "p"}},
        {"seconds": None}, {"tags": 1},
    ]  # fmt: skip
    assert one.decode("key", b"pk1j" + json.dumps(good).encode()) is not None
    assert one.decode("key", b"pk2j" + json.dumps(good).encode()) is None
    for change in wrong:
        assert one.decode("key", b"pk1j" + json.dumps({**good, **change}).encode()) is None, change


def test_a_bomb_is_not_unpacked() -> None:
    clock = FakeClock()
    whole = codec(clock).encode(entry("x", clock))[4:]
    bomb = b"pk1z" + zlib.compress(whole + b" " * 10_000_000, 9)
    assert codec(clock).decode("key", bomb) is not None
    assert codec(clock, max_bytes=1000).decode("key", bomb) is None


def test_encrypted_bytes_show_nothing_and_need_the_key() -> None:
    needs_module("cryptography")
    from cryptography.fernet import Fernet

    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    clock = FakeClock()
    data = codec(clock, encryption_key=old).encode(entry("secret answer", clock))
    assert b"secret" not in data
    assert codec(clock).decode("key", data) is None
    assert codec(clock, encryption_key=new).decode("key", data) is None
    rotated = codec(clock, encryption_key=f"{new}, {old}").decode("key", data)
    assert rotated is not None
    assert rotated.value == "secret answer"
    plain = codec(clock).encode(entry("planted", clock))
    assert codec(clock, encryption_key=new).decode("key", plain) is None


def test_a_bad_key_is_told_without_showing_it() -> None:
    needs_module("cryptography")
    with pytest.raises(ConfigError, match="32 bytes") as told:
        codec(FakeClock(), encryption_key="hunter2")
    assert "hunter2" not in str(told.value)
    assert "hunter2" not in repr(CacheSettings(encryption_key="hunter2"))


def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("compression.zstd", "backports.zstd", "cryptography.fernet"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=r"pip install 'perfkit\[compression\]'"):
        codec(FakeClock(), compression="zstd")
    with pytest.raises(ConfigError, match=r"pip install 'perfkit\[encryption\]'"):
        codec(FakeClock(), encryption_key="k")
