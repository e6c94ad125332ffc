"""The second statement of what may be granted notices whatever must not be."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.chaos.tale_of_grants import left_behind, tales_of

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
LIMIT = {"type": "rate_limit", "key": "k", "max_executions": 2, "window_ms": 1000}
SLOT = {"type": "concurrency", "scope": "s", "key": "k", "limit": 1}
GPU = {"type": "resources", "requirements": [{"type": "gpu", "amount": 2}]}
POOL = {"type": "pool_declared", "pool": {"id": "rack", "type": "gpu", "capacity": 3}}


def granted(who: str, ask: dict[str, Any] | None = None, *resources: dict[str, Any]) -> dict[str, Any]:
    return {"type": "request_granted", "request_id": who, "resources": resources} | ({"ask": ask} if ask else {})


def queued(who: str, ask: dict[str, Any]) -> dict[str, Any]:
    return {"type": "request_queued", "request_id": who, "ask": ask}


def released(who: str, *resources: str) -> dict[str, Any]:
    return {"type": "grant_released", "request_id": who, "resources": resources}


def two(who: str) -> dict[str, Any]:
    return {"id": f"{who}-1", "pool": "rack", "type": "gpu", "amount": 2}


def commits(entity: str, *events: tuple[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """One commit for each event, so many ms after the beginning."""
    return [
        {"execution_id": entity, "n": n, "time": (BEGIN + timedelta(milliseconds=ms)).isoformat(), "events": [event]}
        for n, (ms, event) in enumerate(events, 1)
    ]


@pytest.mark.parametrize(
    ("entity", "events", "said"),
    [
        ("_limit-a", [(0, granted("a", LIMIT)), (1, granted("b", LIMIT)), (1000, granted("c", LIMIT))], ""),
        ("_limit-a", [(0, granted("a", LIMIT)), (1, granted("b", LIMIT)), (999, granted("c", LIMIT))], "3 were granted within"),
        ("_limit-a", [(5, granted("a", LIMIT)), (1, granted("b", LIMIT))], "after one at"),
        ("_slots-a", [(0, granted("a", SLOT)), (1, queued("b", SLOT)), (2, released("a")), (3, granted("b"))], ""),
        ("_slots-a", [(0, granted("a", SLOT)), (1, queued("b", SLOT)), (3, granted("b"))], "2 of 2 hold"),
        ("_slots-a", [(0, granted("a", SLOT)), (1, granted("a", SLOT))], "granted twice"),
        ("_slots-a", [(0, granted("a"))], "did not ask for"),
        ("_slots-a", [(0, granted("a", SLOT)), (1, released("a")), (2, released("a"))], "did not hold"),
        (
            "_slots-a",
            [(0, granted("a", SLOT | {"limit": 2, "total": 1})), (0, granted("b", SLOT | {"limit": 2, "total": 1}))],
            "hold",
        ),
        (
            "_pools",
            [(0, POOL), (1, granted("a", GPU, two("a"))), (2, released("a", "a-1")), (3, granted("b", GPU, two("b")))],
            "",
        ),
        ("_pools", [(0, POOL), (1, granted("a", GPU, two("a"))), (2, granted("b", GPU, two("b")))], "these are held"),
        ("_pools", [(0, granted("a", GPU, two("a")))], "these are held"),
        ("_pools", [(0, POOL), (1, granted("a", GPU, two("a"))), (2, released("a", "x-1"))], "gave back x-1"),
    ],
)
def test_what_must_not_be_granted_is_noticed(entity: str, events: list[tuple[int, dict[str, Any]]], said: str) -> None:
    """And what may is not."""
    _, problems = tales_of(commits(entity, *events))
    assert len(problems) == bool(said)
    assert all(said in problem for problem in problems)


def test_who_waits_or_holds_is_told() -> None:
    """Nobody does once all has ended."""
    tales, _ = tales_of(commits("_slots-a", (0, granted("a", SLOT)), (1, queued("b", SLOT))))
    assert left_behind(tales) == ["b waits for _slots-a", "a holds _slots-a"]


def test_a_tale_with_a_gap_is_not_told() -> None:
    """What was compacted before anybody read it cannot be judged; nor what follows upon it."""
    told = commits("_slots-a", (0, granted("a", SLOT)), (1, released("a")), (2, granted("b", SLOT)), (3, released("b")))
    assert tales_of([told[0], *told[2:]]) == ({}, [])
    assert tales_of([*told[1:], told[0], told[1]])[0].keys() == {"_slots-a"}
