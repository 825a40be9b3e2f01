"""Reads HTML as a person does; apart, so that the parser is loaded only where there is HTML."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Final

__all__ = ["Reader"]

_SILENT: Final = frozenset({"script", "style", "head", "noscript", "template", "svg"})
_BLOCKS: Final = frozenset(
    {"p", "div", "br", "li", "tr", "h1", "h2", "h3", "h4", "h5", "h6", "table", "ul", "ol", "section", "article"}
    | {"header", "footer", "main", "nav", "pre", "blockquote", "dt", "dd", "hr", "form", "option"}
)


class Reader(HTMLParser):
    """Collects what a reader sees, and where links lead."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._silent = 0
        self._links: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin lines, cells and links."""
        self._silent += tag in _SILENT
        if tag in _BLOCKS:
            self.parts.append("\n- " if tag == "li" else "\n")
        elif tag in ("td", "th"):
            self.parts.append(" | ")
        elif tag == "a":
            self._links.append(dict(attrs).get("href"))

    def handle_endtag(self, tag: str) -> None:
        """End lines, and say where links lead."""
        self._silent = max(0, self._silent - (tag in _SILENT))
        if tag in _BLOCKS:
            self.parts.append("\n")
        elif tag == "a" and self._links and (link := self._links.pop()) and link.startswith("http"):
            self.parts.append(f" ({link})")

    def handle_data(self, data: str) -> None:
        """Take text that is shown."""
        if not self._silent:
            self.parts.append(data)
