"""What an executor keeps in memory between messages."""

from datetime import UTC, datetime

import pytest

from esexec.domain import limits
from esexec.domain.state import ExecutionState
from esexec.executor.desk import Desk
from esexec.executor.mailbox import Mailbox
from esexec.log.memory import MemoryLog


def at_rest(desk: Desk, entity: str, weight: int) -> None:
    mailbox = desk._mailboxes[entity] = Mailbox(desk, entity)
    mailbox.state = ExecutionState(entity, n=1, weight=weight, time=datetime(2026, 1, 1, tzinfo=UTC))
    desk.settled(mailbox)


def test_the_cache_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many entities may be kept, those used longest ago go once all together weigh more than `cached_bytes`."""
    monkeypatch.setattr(limits, "cached_bytes", 1000)
    desk = Desk("x", MemoryLog(), None)  # type: ignore[arg-type]  # nothing is sent
    for entity, weight in (("a", 400), ("b", 500), ("c", 300), ("b", 600)):
        at_rest(desk, entity, weight)
    assert list(desk._mailboxes) == ["c", "b"]


def test_the_cache_is_bounded_in_number() -> None:
    """`cache_size` entities are kept, those that were used last."""
    desk = Desk("x", MemoryLog(), None, cache_size=2)  # type: ignore[arg-type]  # nothing is sent
    for entity in "abca":
        at_rest(desk, entity, 1)
    assert list(desk._mailboxes) == ["c", "a"]


def test_what_is_too_large_alone_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entity that weighs more than the whole cache may is dropped at once, and nothing is counted of it."""
    monkeypatch.setattr(limits, "cached_bytes", 1000)
    desk = Desk("x", MemoryLog(), None)  # type: ignore[arg-type]  # nothing is sent
    at_rest(desk, "a", 5000)
    assert (list(desk._mailboxes), desk._weight) == ([], 0)
