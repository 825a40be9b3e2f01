from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.transport.encoding import ACCEPT, CodingError, compress, decode, decoder

BODY = b'{"text": "' + b"all work and no play " * 50 + b'"}'
RAW = zlib.compressobj(wbits=-15)
CODED = {
    "gzip": gzip.compress(BODY),
    "x-gzip": gzip.compress(BODY),
    "deflate": zlib.compress(BODY),
    "Deflate": RAW.compress(BODY) + RAW.flush(),
}


@pytest.mark.parametrize("coding", CODED)
def test_whole_body_is_decoded(coding: str) -> None:
    assert decode(CODED[coding], coding, 10_000) == BODY


@pytest.mark.parametrize("coding", CODED)
@given(st.integers(1, 60))
def test_body_decodes_the_same_in_pieces(coding: str, size: int) -> None:
    unpack = decoder(coding, 10_000)
    assert unpack is not None
    data = CODED[coding]
    decoded = b"".join(unpack.feed(data[i : i + size]) for i in range(0, len(data), size))
    unpack.finish()
    assert decoded == BODY


@pytest.mark.parametrize("coding", CODED)
@pytest.mark.parametrize("missing", [1, 4, 8, 20])
def test_body_cut_short_is_refused(coding: str, missing: int) -> None:
    with pytest.raises(CodingError, match="cut short"):
        decode(CODED[coding][:-missing], coding, 10_000)


def test_damaged_body_is_refused() -> None:
    data = bytearray(CODED["gzip"])
    data[-6] ^= 0xFF  # the checksum
    with pytest.raises(CodingError, match="damaged"):
        decode(bytes(data), "gzip", 10_000)


def test_bomb_is_refused_before_it_fills_the_memory() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    unpack = decoder("gzip", 100_000)
    assert unpack is not None
    with pytest.raises(CodingError, match="more than 100000 bytes"):
        unpack.feed(bomb)


def test_body_of_exactly_the_limit_is_accepted() -> None:
    assert decode(CODED["gzip"], "gzip", len(BODY)) == BODY
    with pytest.raises(CodingError):
        decode(CODED["gzip"], "gzip", len(BODY) - 1)


def test_gzip_members_follow_one_another_but_nothing_follows_deflate() -> None:
    assert decode(CODED["gzip"] * 2, "gzip", 10_000) == BODY * 2
    with pytest.raises(CodingError):
        decode(CODED["gzip"] + b"junk", "gzip", 10_000)
    with pytest.raises(CodingError):
        decode(CODED["deflate"] + b"junk", "deflate", 10_000)


def test_coding_nobody_asked_for_is_refused_by_name() -> None:
    with pytest.raises(CodingError, match="'br'"):
        decode(b"x", "br", 100)


@pytest.mark.parametrize("coding", ["", "identity", " Identity "])
def test_plain_body_stays_as_it_is(coding: str) -> None:
    assert decode(b"x", coding, 100) == b"x"


def test_every_coding_asked_for_can_be_decoded() -> None:
    for coding in ACCEPT.split(", "):
        assert decoder(coding, 100) is not None


def test_compressed_request_is_gzip() -> None:
    assert gzip.decompress(compress(BODY)) == BODY
