"""What a start is warned of is bounded, however large its plan is: too large an answer costs its sender the connection."""

from typing import Any, cast

import msgspec

from esexec.domain import commands as c
from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain.announced import warnings_of
from esexec.domain.decider import decide
from esexec.domain.decision import Surroundings
from esexec.domain.messages import Answer
from esexec.domain.state import ExecutionState
from esexec.executor.outbox import NatsOutbox
from esexec.nats.subjects import Subjects
from tests.given import at

NAMES = [f"task_{number}" for number in range(5_000)]


def test_of_many_tasks_that_nobody_announced_the_first_are_told() -> None:
    """Neither the history nor the answer grows with how many there are."""
    plan = {"name": "p", "steps": [{"id": f"s{number}", "task": name} for number, name in enumerate(NAMES)]}
    start = c.StartExecution(id="c", plan=msgspec.Raw(msgspec.json.encode(plan)))
    events = decide(ExecutionState("e"), start, at(0), around=Surroundings(all_known=True))
    assert isinstance(events, list)
    assert isinstance(events[0], e.ExecutionCreated)
    assert events[0].unannounced == tuple(NAMES[: limits.unannounced_tasks])


class Heard:
    def __init__(self) -> None:
        self.client, self.posted = self, list[bytes]()

    def post(self, subject: str, data: bytes) -> None:
        self.posted.append(data)


async def test_an_answer_fits_into_a_message() -> None:
    """What is told besides is left out where it does not: the history has it."""
    heard = Heard()
    outbox = NatsOutbox(cast(Any, heard), Subjects("n"), cast(Any, None))
    answer = Answer(command_id="c", execution_id="e", status="accepted", warnings=warnings_of(NAMES[:10]))
    await outbox.answer(answer)
    await outbox.answer(msgspec.structs.replace(answer, warnings=warnings_of(NAMES), record={"input": "x" * 600_000}))
    short, cut = (msgspec.json.decode(one, type=Answer) for one in heard.posted)
    assert len(short.warnings) == 10
    assert (cut.status, cut.warnings, cut.record) == ("accepted", (), None)
