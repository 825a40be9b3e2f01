"""Prometheus' text format, of one process or of all workers: what `/metrics` answers.

Nothing is gathered for it: every series knows all it has counted since the beginning, so a scrape only writes it down.
Durations are histograms in seconds with bounds at half octaves (a quantile over them is within 19 %, those of
`get_stats` within 0.6 %), other values histograms with bounds at powers of 4. Names and tags become what the format
allows; what becomes the same by that is added up, because one double line would cost the whole scrape.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from perfkit.metrics.sketch import Sketch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from perfkit.metrics.reading import Readable, Series
    from perfkit.metrics.sinks import Kind

__all__ = ["CONTENT_TYPE", "MetricsApp", "family_name", "label_name", "render"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = tuple(2.0 ** (half / 2) for half in range(-20, 17))  # 0.98 ms to 256 s
_AMOUNTS = tuple(4.0**power for power in range(-10, 14))  # a millionth of a dollar to 67 million tokens
_TYPES = {"timing": "histogram", "value": "histogram", "counter": "counter", "gauge": "gauge"}
_HELP = {
    "agent_response_time": "Seconds a caller waited for an answer, cached or not.",
    "provider_latency": "Seconds of attempts that a provider answered.",
    "provider_failure": "Attempts that failed, by error.",
    "llm_duration": "Seconds of calls that a provider answered.",
    "llm_error": "Calls that ended in an error, by kind.",
    "first_token": "Seconds to the first text of a stream.",
    "time_per_output_token": "Seconds for each token of an answer.",
    "cost": "US dollars spent.",
    "cache_hit": "Questions that the cache answered.",
    "cache_miss": "Questions that the cache could not answer.",
    "http_request_duration": "Seconds of HTTP requests.",
}

Labels = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class _Family:
    """All series that share a name in the format."""

    type: str
    help: str
    bounds: tuple[float, ...]
    samples: dict[Labels, Any] = field(default_factory=dict)  # a Sketch, or a number


def family_name(kind: Kind, name: str, prefix: str = "perfkit") -> str:
    """Return what a metric is called in Prometheus, by its naming rules (prometheus.io/docs/practices/naming)."""
    plain = re.sub(r"[^a-zA-Z0-9_]", "_", f"{prefix}_{name}" if prefix else name)
    if not plain or plain[0].isdigit():
        plain = f"_{plain}"
    plain = plain.removesuffix("_total").removesuffix("_seconds") or "_"
    return plain + {"timing": "_seconds", "counter": "_total"}.get(kind, "")


def label_name(tag: str) -> str:
    """Return what a tag is called in Prometheus; "le" and "quantile" are its own."""
    name = re.sub(r"[^a-zA-Z0-9_]", "_", tag)
    if not name or name[0].isdigit():
        name = f"_{name}"
    return f"tag{name}" if name.startswith("__") or name in ("le", "quantile") else name


def _escaped(text: str) -> str:
    text = text.encode("utf-8", "replace").decode()
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _labels(series: Series) -> Labels:
    found: dict[str, str] = {}
    for tag, value in sorted(series.tags.items()):
        name = label_name(tag)
        while name in found:
            name += "_"
        found[name] = _escaped(value)
    return tuple(sorted(found.items()))


def render(view: Readable, *, prefix: str = "perfkit") -> str:
    """Return all metrics of `perfkit.tracker`, or of all workers as `perfkit.tracker.merged()` has them.

    Args:
        view: either of them.
        prefix: first part of every name, may be empty.
    """
    families: dict[str, _Family] = {}
    for series in view.series():
        name = family_name(series.kind, series.name, prefix)
        _count(_family(families, name, series), series)
    return "".join(line + "\n" for name, family in sorted(families.items()) for line in _lines(name, family))


def _family(families: dict[str, _Family], name: str, series: Series) -> _Family:
    """Return the family of a series; one of another type that has taken its name already leaves it a longer one."""
    type_ = _TYPES[series.kind]
    while (found := families.get(name)) is not None and found.type != type_:
        name += f"_{series.kind}"
    if found is None:
        bounds = _SECONDS if series.kind == "timing" else _AMOUNTS
        text = _HELP.get(series.name, f"Metric {series.name} of perfkit.")
        found = families[name] = _Family(type_, _escaped(text).replace(r"\"", '"'), bounds)
    return found


def _count(family: _Family, series: Series) -> None:
    labels = _labels(series)
    if family.type == "histogram":
        found = family.samples.setdefault(labels, counted := series.lifetime())
        if found is not counted:
            found.merge(counted)
    elif family.type == "counter":
        family.samples[labels] = family.samples.get(labels, 0.0) + series.lifetime().total
    elif series.last is not None:
        family.samples[labels] = series.last


def _lines(name: str, family: _Family) -> Iterator[str]:
    yield f"# HELP {name} {family.help}"
    yield f"# TYPE {name} {family.type}"
    for labels, sample in sorted(family.samples.items()):
        if isinstance(sample, Sketch):
            yield from _histogram(name, labels, sample, family.bounds)
        else:
            yield f"{name}{_shown(labels)} {_number(sample)}"


def _histogram(name: str, labels: Labels, sketch: Sketch, bounds: tuple[float, ...]) -> Iterator[str]:
    inner = "".join(f'{label}="{value}",' for label, value in labels)
    for bound, n in zip(map(_bound, bounds), sketch.at_most(bounds), strict=True):
        yield f'{name}_bucket{{{inner}le="{bound}"}} {n}'
    yield f'{name}_bucket{{{inner}le="+Inf"}} {sketch.count}'
    yield f"{name}_sum{_shown(labels)} {_number(sketch.total)}"
    yield f"{name}_count{_shown(labels)} {sketch.count}"


def _shown(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels) + "}" if labels else ""


@cache
def _bound(value: float) -> str:
    return _number(value)


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(value)


class MetricsApp:
    """A WSGI application that answers a scrape: mount it at `/metrics`, or call `render` from a view of your own.

    Args:
        tracker: whose metrics, with those its workers share.
        prefix: first part of every name.
    """

    def __init__(self, tracker: Any, *, prefix: str = "perfkit") -> None:
        self._tracker = tracker
        self._prefix = prefix

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:  # noqa: ARG002 - WSGI's own
        """Answer with all metrics, whatever the path."""
        body = render(self._tracker.merged(), prefix=self._prefix).encode()
        start_response("200 OK", [("Content-Type", CONTENT_TYPE), ("Content-Length", str(len(body)))])
        return [body]
