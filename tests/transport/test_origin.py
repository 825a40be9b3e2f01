from __future__ import annotations

import pytest

from perfkit.errors import ConfigError
from perfkit.transport.origin import authority, split_url


@pytest.mark.parametrize(
    ("url", "origin", "target"),
    [
        ("http://127.0.0.1:8080/v1", ("http", "127.0.0.1", 8080), "/v1"),
        ("https://api.openai.com", ("https", "api.openai.com", 443), "/"),
        ("HTTP://Host/a?b=c#d", ("http", "host", 80), "/a?b=c"),
        ("http://[::1]:9/x", ("http", "::1", 9), "/x"),
    ],
)
def test_url_is_split(url: str, origin: tuple[str, str, int], target: str) -> None:
    assert split_url(url) == (origin, target)


@pytest.mark.parametrize("url", ["", "api.openai.com/v1", "ftp://host/", "http://", "http://host:port/", "/v1"])
def test_what_is_no_http_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        split_url(url)


def test_credentials_in_a_url_are_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError, match="host holds credentials") as caught:
        split_url("http://user:s3cret@host/")
    assert "s3cret" not in str(caught.value)


def test_authority_leaves_out_the_usual_port() -> None:
    assert authority(("https", "h", 443)) == "h"
    assert authority(("http", "h", 443)) == "h:443"
    assert authority(("http", "::1", 80)) == "[::1]"
