"""The examples' agents, run as programs; a scripted model calls their tools."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from _parts import REPOSITORY
from _servers import environment
from agents.test_agent import calling

from perfkit.testing import FaultServer, faults


def run(example: str, fault: FaultServer, folder: Path, *behaviours: faults.Behaviour) -> str:
    fault.behave(*behaviours)
    env = environment(LLM_BASE_URL=fault.base_url, LLM_API_KEY="sk-test")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(REPOSITORY / "examples" / f"{example}.py")],
        env=env, cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def told(fault: FaultServer) -> list[str]:
    body: dict[str, Any] = json.loads(fault.stats()["recent"][-1]["body"])
    return [message["content"] for message in body["messages"] if message["role"] == "tool"]


def test_customer_support_searches_the_knowledge_base(fault: FaultServer, tmp_path: Path) -> None:
    search = calling(
        ("knowledge_base_search", {"query": "refund of the price"}), ("knowledge_base_search", {"query": "?"})
    )
    printed = run("customer_support", fault, tmp_path, search, faults.ok("Within 30 days."))
    assert printed.startswith("Within 30 days.\nfrom ['Refunds'")
    found, nothing = told(fault)
    assert json.loads(found)[0].startswith("Refunds: Within 30 days")
    assert "Nothing found" in nothing
    assert "context_variables" not in fault.stats()["recent"][0]["body"]


def test_data_analyst_reads_and_draws_and_cannot_write(fault: FaultServer, tmp_path: Path) -> None:
    printed = run(
        "data_analyst",
        fault,
        tmp_path,
        calling(
            ("sql_query", {"query": "SELECT month, sum(amount) AS total FROM sales GROUP BY month LIMIT 2"}),
            ("sql_query", {"query": "DELETE FROM sales"}),
            ("sql_query", {"query": "ATTACH 'other.db' AS other"}),
        ),
        calling(("chart_generation", {"title": "Tea <&>", "labels": ["Jan", "Feb"], "values": [120.0, 140.0]})),
        faults.ok("Rising."),
    )
    assert printed == "Rising.\ncharts: ['chart-1.svg'], 3 rounds\n"
    rows, *denied, chart = told(fault)
    assert json.loads(rows) == [{"month": "2026-01", "total": 120.0}, {"month": "2026-02", "total": 140.0}]
    assert [text.startswith("Error: DatabaseError: not authorized") for text in denied] == [True, True]
    assert not (tmp_path / "other.db").exists()
    drawn = ET.parse(tmp_path / chart).getroot()
    assert drawn.tag == "{http://www.w3.org/2000/svg}svg"
    assert [one.text for one in drawn.iter("{http://www.w3.org/2000/svg}title")] == ["Tea <&>"]
