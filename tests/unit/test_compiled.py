"""Graphs that are remembered: the same object for the same bytes, and a bounded amount of memory."""

import gc

import msgspec

from esexec.domain import limits
from esexec.domain.compiled import forget_graphs, graph_of
from esexec.domain.graph import Graph


def plan(number: int, steps: int) -> bytes:
    return msgspec.json.encode({"name": f"p{number}", "steps": [{"id": f"s{step}", "task": "t"} for step in range(steps)]})


def test_the_same_bytes_give_the_same_graph() -> None:
    """Small or large: a plan that runs again and again is checked once."""
    for steps in (1, 1_000):
        assert graph_of(plan(0, steps)) is graph_of(plan(0, steps))


def test_large_plans_are_remembered_in_a_smaller_number() -> None:
    """A graph is many times as large as its plan: a thousand different large ones would take gigabytes."""
    forget_graphs()
    for number in range(2 * limits.cached_large_plans):
        graph_of(plan(number, 300))
    gc.collect()
    kept = [thing for thing in gc.get_objects() if type(thing) is Graph and len(thing.steps) == 300]
    assert len(kept) <= limits.cached_large_plans
