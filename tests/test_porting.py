"""docs/porting.md is complete and true: every item of the four documents has a row, every ported name is real."""

from __future__ import annotations

import ast
import pkgutil
import re
from collections import Counter
from typing import NamedTuple

import pytest
from _parts import REPOSITORY

from perfkit.config import NAMED_TABLES, TABLES

STATUSES = {"done", "changed", "dropped", "planned"}
KINDS = {"heading", "class", "method", "option", "default", "figure"}
NAME = re.compile(r"`(perfkit(?:\.\w+)+)`")
SETTING = re.compile(r"`\[(\w+)\] (\w+)=([^`]+)`")


class Row(NamedTuple):
    document: str
    item: str
    name: str
    status: str
    why: str

    @property
    def ported(self) -> bool:
        return self.status in {"done", "changed"}


def parse(text: str) -> list[Row]:
    """Return the table rows below each `## document` heading; code marks around an item do not count."""
    found: list[Row] = []
    document = ""
    for line in text.splitlines():
        if line.startswith("## "):
            document = line[3:]
        elif document and line.startswith("| ") and not line.startswith("| source item |"):
            cells = [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")]
            assert len(cells) == 4, f"four columns wanted: {line}"
            found.append(Row(document, cells[0].replace("`", ""), *cells[1:]))
    return found


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return parse((REPOSITORY / "docs" / "porting.md").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def items() -> list[tuple[str, ...]]:
    text = (REPOSITORY / "tests" / "data" / "porting_items.txt").read_text(encoding="utf-8")
    return [tuple(line.split("\t")) for line in text.splitlines()]


def unresolved(name: str) -> bool:
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return True
    return False


def test_the_list_of_items_is_well_formed(items: list[tuple[str, ...]]) -> None:
    assert [item for item in items if len(item) != 3 or item[1] not in KINDS or not item[2]] == []


def test_every_item_of_the_documents_has_a_row(rows: list[Row], items: list[tuple[str, ...]]) -> None:
    covered = {(row.document, row.item) for row in rows}
    assert [(document, item) for document, _, item in items if (document, item) not in covered] == []


def test_no_item_has_two_rows(rows: list[Row]) -> None:
    counts = Counter((row.document, row.item) for row in rows)
    assert [key for key, count in counts.items() if count > 1] == []


def test_every_status_is_known(rows: list[Row]) -> None:
    assert [row for row in rows if row.status not in STATUSES] == []


def test_every_row_that_is_not_a_plain_port_says_why(rows: list[Row]) -> None:
    assert [row for row in rows if row.status != "done" and not row.why] == []


def test_planned_rows_begin_with_the_part_they_will_live_in(rows: list[Row]) -> None:
    assert [row for row in rows if row.status == "planned" and not re.match(r"In `[\w/]+`", row.why)] == []


def test_names_of_ported_rows_can_be_imported(rows: list[Row]) -> None:
    names = {name for row in rows if row.ported for name in NAME.findall(row.name)}
    assert sorted(filter(unresolved, names)) == []


def test_settings_of_ported_rows_are_the_defaults(rows: list[Row]) -> None:
    tables = TABLES | NAMED_TABLES
    settings = {setting for row in rows if row.ported for setting in SETTING.findall(row.name)}
    wrong = [
        f"[{table}] {key}={value}"
        for table, key, value in settings
        if getattr(tables[table](), key) != ast.literal_eval(value)
    ]
    assert wrong == []
