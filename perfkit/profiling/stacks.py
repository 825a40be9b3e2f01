"""Where time went, as stacks with the seconds spent in each, and the forms that other programs read."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from perfkit.charts import flame_graph

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Stacks", "page", "speedscope"]

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --ink: #16202a; --ground: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8edf2; --ground: #10161c; } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 1rem; color: var(--ink); background: var(--ground); }
.flame { width: 100%; height: auto; } .flame text { font: 11px ui-monospace, monospace; fill: #16202a; }
.flame g:hover rect { stroke: var(--ink); }
.heat-0 { fill: #f6c667 } .heat-1 { fill: #f3a95f } .heat-2 { fill: #ef8f62 }
.heat-3 { fill: #f2b8a0 } .heat-4 { fill: #e8cf8a } .heat-5 { fill: #d9b38c }
pre { overflow-x: auto }
td, th { text-align: right; padding: .2rem .6rem } td:first-child, th:first-child { text-align: left }
"""
_SCHEMA = "https://www.speedscope.app/file-format-schema.json"


def seconds(value: float) -> str:
    """Write seconds."""
    return f"{value:.3g} s" if value >= 1 else f"{value * 1000:.3g} ms"


@dataclass(frozen=True, slots=True)
class Stacks:
    """Names from the outermost call to the innermost, with seconds.

    Attributes:
        seconds: what was spent in the last of the names itself.
    """

    seconds: Mapping[tuple[str, ...], float]

    @property
    def total(self) -> float:
        """All seconds together."""
        return sum(self.seconds.values())

    def methods(self, most: int = 20) -> list[dict[str, Any]]:
        """Return the functions with the most time: name, total_time, self_time; calls is None, since none is counted.

        A function that calls itself counts once. Of functions with the same times the innermost comes first.
        """
        within: defaultdict[str, float] = defaultdict(float)
        own: defaultdict[str, float] = defaultdict(float)
        depth: dict[str, int] = {}
        for stack, spent in self.seconds.items():
            own[stack[-1]] += spent
            for name in set(stack):
                within[name] += spent
            depth |= {name: max(place, depth.get(name, 0)) for place, name in enumerate(stack)}
        ranked = sorted(within, key=lambda name: (-own[name], -within[name], -depth[name], name))
        return [
            {"name": name, "total_time": within[name], "self_time": own[name], "calls": None} for name in ranked[:most]
        ]

    def collapsed(self) -> str:
        """Return a line for each stack, `outer;inner 12` in milliseconds: what flamegraph.pl and others read."""
        lines = (
            f"{';'.join(name.replace(';', ',') for name in stack)} {round(spent * 1000)}"
            for stack, spent in sorted(self.seconds.items())
        )
        return "\n".join(lines) + "\n"

    def svg(self, title: str) -> str:
        """Return the flame graph alone, for a page that brings the colours."""
        return flame_graph(self.seconds, title=title, value=seconds)

    def section(self, title: str) -> str:
        """Return flame graph and table as part of a page."""
        rows = "".join(
            f"<tr><td>{escape(one['name'])}</td><td>{seconds(one['self_time'])}</td>"
            f"<td>{seconds(one['total_time'])}</td></tr>"
            for one in self.methods()
        )
        table = f"<table><tr><th>Function</th><th>Itself</th><th>With what it calls</th></tr>{rows}</table>"
        return f"<h2>{escape(title)}</h2>{self.svg(title)}{table}"


def speedscope(named: Sequence[tuple[str, Stacks]]) -> dict[str, Any]:
    """Return the document that https://www.speedscope.app and its offline form open."""
    places: dict[str, int] = {}
    profiles = [
        {
            "type": "sampled",
            "name": name,
            "unit": "seconds",
            "startValue": 0,
            "endValue": stacks.total,
            "samples": [[places.setdefault(one, len(places)) for one in stack] for stack in stacks.seconds],
            "weights": list(stacks.seconds.values()),
        }
        for name, stacks in named
    ]
    return {"$schema": _SCHEMA, "shared": {"frames": [{"name": one} for one in places]}, "profiles": profiles}


def page(title: str, body: str) -> str:
    """Return a page of its own."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><style>{_STYLE}</style></head>'
        f"<body>{body}</body></html>"
    )
