"""Texts with fewer tokens: repeated lines told once, HTML as what a reader sees, UUIDs under short names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["UUID", "lines_told_again", "lines_told_once", "text_of_html"]

UUID: Final = re.compile(r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b")
LONG: Final = 40  # characters of a line that is worth a reference
_REFERENCE: Final = re.compile(r"\[as lines? (\d+)(?:-(\d+))?\]")
_HTML: Final = re.compile(
    r"\s*(?:<!doctype html|<html|<head|<body|<div|<table|<article|<section|<p\b|<ul)", re.IGNORECASE
)


def lines_told_once(text: str) -> str | None:
    """Return `text` with lines that came before as references to them, None if none did.

    A line above 40 characters that stood before becomes "[as line 3]", several in a row "[as lines 3-7]"; line numbers
    are those of the text as it was.
    """
    lines = text.split("\n")
    if len(set(lines)) == len(lines) or _REFERENCE.search(text):
        return None
    shorter = "\n".join(_referring(lines))
    return shorter if len(shorter) < len(text) else None


def _referring(lines: Sequence[str]) -> Iterator[str]:
    first: dict[str, int] = {}
    at = 0
    while at < len(lines):
        start = first.setdefault(lines[at], at)
        run = _run(lines, start, at) if start < at and len(lines[at]) > LONG else 0
        if run == 0:
            yield lines[at]
            at += 1
            continue
        yield f"[as line {start + 1}]" if run == 1 else f"[as lines {start + 1}-{start + run}]"
        at += run


def _run(lines: Sequence[str], start: int, at: int) -> int:
    """Return how many lines from `at` on equal those from `start` on, not reaching into themselves."""
    run = 0
    while at + run < len(lines) and start + run < at and lines[start + run] == lines[at + run]:
        run += 1
    return run


def lines_told_again(text: str) -> str:
    """Return the text that `lines_told_once` was given."""
    lines: list[str] = []
    for line in text.split("\n"):
        match = _REFERENCE.fullmatch(line)
        if match is None:
            lines.append(line)
        else:
            begin, end = int(match[1]), int(match[2] or match[1])
            lines += lines[begin - 1 : end]
    return "\n".join(lines)


def text_of_html(text: str) -> str | None:
    """Return what a reader of an HTML document sees, with the addresses of links; None if `text` is none."""
    if not _HTML.match(text):
        return None
    from perfkit.tokens.compression.html import Reader

    reader = Reader()
    reader.feed(text)
    reader.close()
    lines = (re.sub(r"\s+", " ", line).strip(" |") for line in "".join(reader.parts).split("\n"))
    return "\n".join(line for line in lines if line and line != "-")
