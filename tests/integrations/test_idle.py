"""Garbage waits for the end of requests, and what takes long for a second without any."""

from __future__ import annotations

import weakref

import pytest

import perfkit
from perfkit import _process
from perfkit.integrations._idle import UnderWay


class Collector:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[bool, bool]] = []

    def collect_between_requests(self, *, idle: bool, lull: bool) -> None:
        self.told.append((idle, lull))


@pytest.fixture
def collector() -> Collector:
    perfkit.configure(web={"collect_garbage": True})
    return Collector()


@pytest.fixture
def under_way(collector: Collector) -> UnderWay:
    return UnderWay(collector)  # type: ignore[arg-type]


def served(under_way: UnderWay) -> None:
    under_way.begin()
    under_way.collect(idle=under_way.end())


def test_a_look_that_sees_no_request_since_the_last_one_finds_a_lull(under_way: UnderWay, collector: Collector) -> None:
    served(under_way)
    under_way._rest()
    assert collector.told == [(True, False)]
    under_way._rest()
    assert collector.told == [(True, False), (True, True)]
    under_way.begin()
    under_way._rest()
    under_way._rest()
    assert len(collector.told) == 2  # one is under way


def test_looks_for_a_lull_begin_with_the_first_collection(under_way: UnderWay) -> None:
    look = weakref.WeakMethod(under_way._rest)
    assert look not in _process.background._jobs
    served(under_way)
    assert look in _process.background._jobs


def test_a_lull_collects_nothing_when_that_is_no_longer_asked_for(under_way: UnderWay, collector: Collector) -> None:
    served(under_way)
    under_way._rest()
    perfkit.configure(web={"collect_garbage": False})
    under_way._rest()
    assert collector.told == [(True, False)]
