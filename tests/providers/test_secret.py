from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.errors import ConfigError
from perfkit.providers.secret import Credentials, Scrubber, Secret, check_headers

KEY = "sk-pro/ject+1234567890"


def held(api_key: object = None, variable: str | None = None, **headers: str) -> Credentials:
    return Credentials("p", api_key, variable, headers)  # type: ignore[arg-type]


def test_a_secret_is_sent_but_not_shown() -> None:
    secret = Secret(KEY)
    assert f"Bearer {secret}".encode() == b"Bearer " + KEY.encode()
    assert KEY not in repr(secret) + repr({"authorization": secret}) + f"{[secret]!s}"
    assert pickle.loads(pickle.dumps(secret)) == KEY


def test_the_key_is_the_argument_else_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert held(variable="P_API_KEY").key is None
    monkeypatch.setenv("P_API_KEY", f" {KEY}\n")
    assert held(variable="P_API_KEY").key == KEY
    assert held("other-key", "P_API_KEY").key == "other-key"
    assert held("", "P_API_KEY").key is None
    assert held().key is None


@pytest.mark.parametrize("key", ["kéy-123456", "key\r\nx: 1", "key\x00", 5, b"key-123456"])
def test_a_key_that_cannot_be_in_a_header_is_refused_unshown(key: object) -> None:
    with pytest.raises(ConfigError, match="api_key of provider 'p'") as caught:
        held(key)
    assert str(key) not in str(caught.value)


def test_the_variable_is_named_when_its_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P_API_KEY", "kéy")
    with pytest.raises(ConfigError, match="P_API_KEY"):
        held(variable="P_API_KEY")


def test_hints_name_the_variable() -> None:
    assert held(variable="P_API_KEY").hint == "set P_API_KEY or api_key="
    assert held(KEY, "P_API_KEY").hint == "check the key given by P_API_KEY or api_key="
    assert held().hint == "set api_key="


def test_credentials_among_the_headers_are_secrets_too() -> None:
    headers = {"Api-Key": "azure-123456", "X-Auth-Token": "token-123456", "cookie": "c=123456", "X-Title": "my app"}
    credentials = held(KEY, **headers)
    assert repr(credentials.headers).count("***") == 3
    assert credentials.headers == headers
    assert credentials.scrubber.text("azure-123456 token-123456 c=123456 my app") == "*** *** *** my app"


@pytest.mark.parametrize("headers", ["authorization: x-secret", None, {"x": 1}, {1: "x"}, ["x"]])
def test_headers_that_are_no_table_of_text_are_refused_unshown(headers: object) -> None:
    with pytest.raises(ConfigError, match="headers of provider 'p'") as caught:
        check_headers(headers, "p")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "spelling", [KEY, json.dumps(KEY), KEY.replace("/", "\\/"), "sk-pro%2Fject%2B1234567890", f"Bearer {KEY}"]
)
def test_every_spelling_is_taken_out(spelling: str) -> None:
    scrubber = Scrubber([Secret(f"Bearer {KEY}")])
    assert "1234567890" not in scrubber.text(f"wrong key {spelling}!")
    assert scrubber.found_in(f"x{spelling}x".encode())
    assert not scrubber.found_in(b"sk-other")


def test_values_are_taken_apart() -> None:
    document = {"a": [KEY, 1, None, True, {KEY: f"x{KEY}"}], "b": 1.5}
    assert Scrubber([KEY]).value(document) == {"a": ["***", 1, None, True, {"***": "x***"}], "b": 1.5}


def test_a_longer_secret_goes_before_one_that_is_its_beginning() -> None:
    assert Scrubber(["abcd", "abcdefgh"]).text("abcdefgh abcd") == "*** ***"


def test_a_word_too_short_to_be_a_key_stays() -> None:
    assert Scrubber(["no", "     "]).text("no idea") == "no idea"


@given(st.text(st.characters(codec="ascii", exclude_categories=["C", "Z"]), min_size=8), st.text(), st.text())
def test_no_secret_is_left(key: str, before: str, after: str) -> None:
    assert key not in Scrubber([key]).text(before + key + after).replace("***", "") or key in before + after
