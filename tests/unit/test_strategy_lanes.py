"""Where a strategy is asked: in the queue that it names, or in a lane that is nobody else's."""

import itertools

import pytest

from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain.decider import Surroundings
from esexec.domain.ids import is_task_name, is_token, is_user_id
from esexec.domain.strategies import Strategy, own_lane
from esexec.nats.subjects import Subjects
from tests.given import fatal, given, start

LONG = "x" * limits.task_name_chars
IDS = [
    "a", "A", "a_b", "a-b", "a.b", "a:b", "a/b", "a..b", "a_", "_a", "a.", "a_b-1", "x_p5", "7", "_", "shop.rescue:v1.2/eu",
    LONG, LONG[:-1], LONG[:-1] + "y", "x" * 53, "x" * 54, "x" * 55, "x" * 54 + ".", "x" * 55 + ".",
]  # fmt: skip


@pytest.mark.parametrize("id", IDS)
def test_every_id_has_a_lane(id: str) -> None:
    """It is one token of a subject, none that a user may name, and is found again in the name of its consumer."""
    assert is_task_name(id)
    lane = own_lane(id)
    assert (is_token(lane), is_user_id(lane)) == (True, False)
    assert Subjects.parse_lane(Subjects.lane_consumer(lane, 10)) == (lane, 10)
    assert own_lane(id) == lane


def test_no_two_ids_share_a_lane() -> None:
    """However much alike they are, and though one is spelled as the lane of another."""
    ids = [*IDS, *(own_lane(id).removeprefix("_recovery").lstrip("_-") for id in IDS)]
    for one, other in itertools.combinations(dict.fromkeys(ids), 2):
        assert own_lane(one) != own_lane(other), (one, other)


@pytest.mark.parametrize(("queue", "lane"), [("", "_recovery-s"), ("docks", "docks"), ("default", "default")])
def test_the_question_waits_in_the_strategys_lane(queue: str, lane: str) -> None:
    """The event says which, so that a history explains itself."""
    history = given(start("a"))
    history.around = Surroundings(strategies=(Strategy(id="s", queue=queue),))
    outcome = history.when(fatal("a"))
    (asked,) = [event for event in outcome.events if isinstance(event, e.RecoveryInitiated)]
    assert asked.queue == lane
    (dispatch,) = [effect for effect in outcome.effects if hasattr(effect, "message")]
    assert (dispatch.queue, dispatch.message.queue) == (lane, lane)
