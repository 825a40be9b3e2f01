from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Callable

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.transport import codings, encoding
from perfkit.transport.encoding import ACCEPT, CodingError, compress, decode, decoder

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BODY = b'{"text": "' + b"all work and no play " * 50 + b'"}'
RAW = zlib.compressobj(wbits=-15)
CODED = {
    "gzip": gzip.compress(BODY),
    "x-gzip": gzip.compress(BODY),
    "deflate": zlib.compress(BODY),
    "Deflate": RAW.compress(BODY) + RAW.flush(),
    "br": brotli.compress(BODY),
    "zstd": zstd.compress(BODY),
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


@pytest.mark.parametrize(("coding", "where"), [("gzip", -6), ("deflate", -2), ("br", 12), ("zstd", 2)])
def test_damaged_body_is_refused(coding: str, where: int) -> None:
    data = bytearray(CODED[coding])
    data[where] ^= 0xFF
    with pytest.raises(CodingError, match="damaged"):
        decode(bytes(data), coding, 10_000)


@pytest.mark.parametrize(
    ("coding", "pack"), [("gzip", gzip.compress), ("br", brotli.compress), ("zstd", zstd.compress)]
)
def test_bomb_is_refused_before_it_fills_the_memory(
    coding: str, pack: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = list[int]()
    inflate = encoding.Decoder._inflate

    def noting(self: encoding.Decoder, stream: codings.Stream, data: bytes) -> bytes:
        sizes.append(len(piece := inflate(self, stream, data)))
        return piece

    monkeypatch.setattr(encoding.Decoder, "_inflate", noting)
    unpack = decoder(coding, 100_000)
    assert unpack is not None
    with pytest.raises(CodingError, match="more than 100000 bytes"):
        unpack.feed(pack(bytes(5_000_000)))
    assert sum(sizes) < 1_000_000


def test_body_of_exactly_the_limit_is_accepted() -> None:
    assert decode(CODED["gzip"], "gzip", len(BODY)) == BODY
    with pytest.raises(CodingError):
        decode(CODED["gzip"], "gzip", len(BODY) - 1)


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_members_follow_one_another(coding: str) -> None:
    assert decode(CODED[coding] * 2, coding, 10_000) == BODY * 2


@pytest.mark.parametrize("coding", CODED)
def test_nothing_else_follows_the_end(coding: str) -> None:
    with pytest.raises(CodingError):
        decode(CODED[coding] + b"junk", coding, 10_000)


def test_coding_nobody_asked_for_is_refused_by_name() -> None:
    with pytest.raises(CodingError, match="'compress'"):
        decode(b"x", "compress", 100)


def test_coding_without_its_library_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert codings.available() == ["br", "zstd"]
    monkeypatch.setattr(codings, "_LIBRARIES", {"br": "no_such_library", "zstd": "no_such.library"})
    assert codings.available() == []


@pytest.mark.parametrize("coding", ["", "identity", " Identity "])
def test_plain_body_stays_as_it_is(coding: str) -> None:
    assert decode(b"x", coding, 100) == b"x"


def test_every_coding_asked_for_can_be_decoded() -> None:
    for coding in ACCEPT.split(", "):
        assert decoder(coding, 100) is not None


def test_compressed_request_is_gzip() -> None:
    assert gzip.decompress(compress(BODY)) == BODY
