from __future__ import annotations

import pytest

from perfkit.errors import ConfigError
from perfkit.providers.address import checked_base_url


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com/v1"),
        ("http://127.0.0.1:8080/v1/", "http://127.0.0.1:8080/v1"),
        (" http://[::1]:8080 ", "http://[::1]:8080"),
        ("HTTPS://example.com", "HTTPS://example.com"),
    ],
)
def test_good_ones_lose_their_last_slash(given: str, kept: str) -> None:
    assert checked_base_url(given, "p") == kept


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8080/v1",
        "ftp://example.com",
        "https://",
        "https:///v1",
        "http://example.com:port",
        "http://example.com:99999",
        "http://example.com:0",
        "http://[::1",
        "http://exam ple.com",
        "http://example.com/v1?api-version=1",
        "http://example.com/v1#x",
        None,
        5,
    ],
)
def test_bad_ones_are_refused_by_the_name_of_the_provider(url: object) -> None:
    with pytest.raises(ConfigError, match="base_url of provider 'p'"):
        checked_base_url(url, "p")


@pytest.mark.parametrize(
    "url", ["https://user:hunter22@example.com/v1", "https://hunter22@example.com", "ftp://x:hunter22@y"]
)
def test_credentials_are_refused_unshown(url: str) -> None:
    with pytest.raises(ConfigError, match="credentials") as caught:
        checked_base_url(url, "p")
    assert "hunter22" not in str(caught.value)
