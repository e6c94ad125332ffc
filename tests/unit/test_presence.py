"""Which versions of a task are left, as workers tell; nothing is concluded from one that was slow to answer."""

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from esexec.domain.messages import WorkerPresence
from esexec.domain.namespace import TaskVersion
from esexec.executor.params import Versions
from esexec.executor.presence import Presence
from esexec.nats.subjects import Subjects

OLD, NEW = TaskVersion("old", {}), TaskVersion("new", {"type": "object"})
HAS_OLD, HAS_NEW = (WorkerPresence(worker=one, tasks={"t": one}) for one in ("old", "new"))


@pytest.fixture
def told() -> list[Versions]:
    return []


@pytest.fixture
async def presence(told: list[Versions]) -> AsyncIterator[Presence]:
    presence = Presence(cast(Any, None), Subjects("n"), told.append)
    yield presence
    await presence.close()  # before it asks for the first time


async def test_one_answer_that_is_missing_refuses_nobody(presence: Presence, told: list[Versions]) -> None:
    """A version is given up only after several questions in vain, and is back with the first answer."""
    presence.announced({"t": (OLD, NEW)})
    for _ in range(6):
        presence.answered([HAS_NEW])
        presence.answered([])
        presence.answered([HAS_NEW, HAS_OLD])
    assert told == [{"t": (OLD, NEW)}]
    for _ in range(6):
        presence.answered([HAS_NEW])
    assert told[1:] == [{"t": (NEW,)}]
    presence.answered([HAS_OLD])
    assert told[2:] == [{"t": (OLD, NEW)}]


async def test_what_is_told_of_what_nobody_announced_is_not_kept(presence: Presence) -> None:
    """Anybody can tell anything, as often as it pleases them."""
    presence.announced({"t": (OLD, NEW)})
    presence.answered([WorkerPresence(worker=f"w{i}", tasks={"t": f"v{i}", f"u{i}": "new"}) for i in range(1_000)])
    assert len(presence._vain) == 2


async def test_the_same_news_again_make_nothing_anew(presence: Presence, told: list[Versions]) -> None:
    """Other settings are announced often; what tasks take is looked at anew only when that is something else."""
    for _ in range(3):
        presence.announced({"t": (OLD,)})
    assert len(told) == 1
