"""An agent that reads a database and draws charts.

Run it: LLM_BASE_URL=https://api.openai.com/v1 LLM_API_KEY=sk-... python examples/data_analyst.py "your question"
"""

import contextlib
import os
import sqlite3
import sys
from pathlib import Path
from typing import Any

import perfkit
from perfkit.agents import Agent
from perfkit.charts import Line, line_chart

DATABASE = Path("sales.sqlite3")
STYLE = "><style>polyline, line { fill: none; stroke: teal } text { font: 11px sans-serif }</style>"
READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION}


def sql_query(query: str) -> list[dict[str, Any]]:
    """Run one SELECT on the table sales(month TEXT, product TEXT, amount REAL) and return up to 100 rows."""
    database = sqlite3.connect(f"file:{DATABASE}?mode=ro", uri=True)
    database.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in READING else sqlite3.SQLITE_DENY)
    database.row_factory = sqlite3.Row
    with contextlib.closing(database):
        return [dict(row) for row in database.execute(query).fetchmany(100)]


def chart_generation(title: str, labels: list[str], values: list[float], context_variables: dict[str, Any]) -> str:
    """Draw a line chart with one label for each value; returns the name of its SVG file."""
    name = f"chart-{len(context_variables.setdefault('charts', [])) + 1}.svg"
    line, places = Line(title, values), range(len(values))
    svg = line_chart(places, [line], title=title, value="{:,.0f}".format, moment=lambda place: labels[int(place)])
    svg = svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(">", STYLE, 1)
    Path(name).write_text(svg, encoding="utf-8")
    context_variables["charts"].append(name)
    return name


def main(question: str) -> None:
    if not DATABASE.exists():
        with sqlite3.connect(DATABASE) as database:
            database.execute("CREATE TABLE sales (month TEXT, product TEXT, amount REAL)")
            rows = [(f"2026-{month:02}", "tea", 100.0 + 20 * month) for month in range(1, 13)]
            database.executemany("INSERT INTO sales VALUES (?, ?, ?)", rows)
    base_url, key = os.environ.get("LLM_BASE_URL"), os.environ.get("LLM_API_KEY")
    perfkit.configure(providers={"main": {"kind": "openai", "base_url": base_url, "api_key": key}})
    model = os.environ.get("LLM_MODEL", "gpt-4o")
    analyst = Agent("DataAnalyst", "You analyze data and provide insights.", model, [sql_query, chart_generation])
    result = analyst.run(question)
    print(result.text)
    print(f"charts: {result.context_variables.get('charts', [])}, {result.rounds} rounds")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "How did sales of tea develop?")
