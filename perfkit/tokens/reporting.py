"""Reports over what was counted: spending by day and month, run-rate, savings, and exports."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from perfkit.errors import UnknownNameError
from perfkit.tokens.choosing import Choosing
from perfkit.tokens.periods import window
from perfkit.tokens.pricing import from_nano
from perfkit.tokens.usage import DIMENSIONS, SAVINGS, Totals

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perfkit.clock import Moment

__all__ = ["Reporting"]

DAY: Final = 86400.0
MONTH: Final = 365.2425 / 12  # days
FORMATS: Final = ("csv", "json")


class Reporting(Choosing):
    """Spending, savings and exports; times and names as for `get_usage_report`."""

    _zone: tzinfo

    def spending(self, by: str = "day", since: Moment = None, until: Moment = None) -> list[dict[str, Any]]:
        """Return one dict a day or month, oldest first: begin (epoch seconds), cost (US dollars), tokens, requests.

        Days and months are those of the setting `timezone`; hours that lie across their border count in the first.

        Args:
            by: "day" or "month".
            since: None: 30 days ago.
            until: None: now.

        Raises:
            UnknownNameError: `by` is something else.
        """
        if by not in ("day", "month"):
            raise UnknownNameError.of("period of spending", by, ("day", "month"))
        sums: dict[float, Totals] = {}
        for start, _, totals in self._usage.rows(since if since is not None else timedelta(days=30), until):
            sums.setdefault(window(by, start, self._zone)[0], Totals()).add(totals)
        return [
            {"begin": begin, "cost": from_nano(s.nano), "tokens": s.tokens, "requests": s.requests}
            for begin, s in sorted(sums.items())
        ]

    def run_rate(self, since: Moment = None) -> dict[str, float]:
        """Return US dollars spent `per_day` and `per_month` if it goes on as since then (None: a day ago).

        Counted from the first call, if that came later.
        """
        now = self._clock.wall()
        rows = self._usage.rows(since, None)
        begin = min((start for start, _, _ in rows), default=now)
        days = max(now - begin, 60.0) / DAY
        per_day = from_nano(sum(totals.nano for _, _, totals in rows)) / days
        return {"per_day": per_day, "per_month": per_day * MONTH}

    def savings(self, since: Moment = None, until: Moment = None) -> dict[str, float]:
        """Return US dollars not spent: thanks to the response `cache`, `prefix` caching, the `choice` of a model.

        Each is the difference to what the same calls would have cost without it; prefix caching is below 0 where
        prefixes were written at a price and not read again. `spent` is what all calls cost.
        """
        whole = Totals()
        for _, _, totals in self._usage.rows(since, until):
            whole.add(totals)
        return {name: from_nano(getattr(whole, name)) for name in SAVINGS} | {"spent": from_nano(whole.nano)}

    def export_usage(
        self,
        target: str | Path | None = None,
        *,
        kind: str = "csv",
        since: Moment = None,
        until: Moment = None,
    ) -> str:
        """Return usage as text, and write it to a file if `target` is given; a row a minute or hour and set of names.

        Args:
            target: path; one that ends in .json means that format.
            kind: "csv" or "json" (one list of objects). Costs and savings are US dollars.
            since: None: a day ago.
            until: None: now.

        Raises:
            UnknownNameError: the format is not known.
            OSError: the file cannot be written.
        """
        if target is not None and Path(target).suffix == ".json":
            kind = "json"
        if kind not in FORMATS:
            raise UnknownNameError.of("export format", kind, FORMATS)
        rows = list(self._exported(since, until))
        text = json.dumps(rows, indent=1) + "\n" if kind == "json" else _csv(rows)
        if target is not None:
            Path(target).write_text(text, encoding="utf-8", newline="")
        return text

    def _exported(self, since: Moment, until: Moment) -> Iterator[dict[str, Any]]:
        for start, names, totals in self._usage.rows(since, until):
            saved = {f"saved_by_{name}": from_nano(getattr(totals, name)) for name in SAVINGS}
            yield {
                "begin": datetime.fromtimestamp(start, UTC).isoformat(),
                **dict(zip(DIMENSIONS, names, strict=True)),
                "requests": totals.requests,
                "tokens": totals.tokens,
                "cached_tokens": totals.cached,
                "cost": from_nano(totals.nano) if totals.requests > totals.unpriced else None,
                **saved,
            }


def _csv(rows: list[dict[str, Any]]) -> str:
    import csv  # most processes export nothing

    from perfkit.charts import harmless

    output = io.StringIO()
    if rows:
        writer = csv.DictWriter(output, list(rows[0]))
        writer.writeheader()
        writer.writerows({key: harmless(value) for key, value in row.items()} for row in rows)
    return output.getvalue()
