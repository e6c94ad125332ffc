"""Names on the wire: what is built is what is parsed, and nothing hostile gets through a parser."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esexec.domain.errors import ValidationError
from esexec.nats.subjects import STREAMS, Subjects

subjects = Subjects("ns-1")
tokens = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
queues = st.from_regex(r"[A-Za-z0-9-][A-Za-z0-9_-]{0,63}", fullmatch=True)
counts = st.integers(0, 10**9)


@pytest.mark.parametrize("name", ["", "_mine", "a.b", "a*", ">", "a b", "ü", "x" * 65, "a\n"])
def test_a_namespace_follows_the_id_grammar(name: str) -> None:
    """A name that could widen a subject is refused with a code and a hint."""
    with pytest.raises(ValidationError) as refused:
        Subjects(name)
    assert refused.value.code == "namespace_invalid"
    assert refused.value.hint


def test_the_names_are_those_of_the_design() -> None:
    """Names on the wire are a public protocol: they never change."""
    s = Subjects("default")
    assert s.stream_names == (*(f"ESEXEC_default_{name}" for name in STREAMS[:-1]), "OBJ_ESEXEC_default_OBJECTS")
    assert s.command("e", "start") == "esexec.default.cmd.e.start"
    assert s.commands_transform == "esexec.default.commands.{{partition(16,1)}}.{{wildcard(1)}}.{{wildcard(2)}}"
    assert s.report("e", "q", "s", 1, 2) == "esexec.default.in.e.report.q.s.1-2"
    assert s.due_in("e", "7") == "esexec.default.in.e.due.7"
    assert s.continue_in("e", 7) == "esexec.default.in.e.continue.7"
    assert s.nudge_in("e") == "esexec.default.in.e.nudge"
    assert s.log("e", 3) == "esexec.default.log.e.3"
    assert s.log_all("e") == "esexec.default.log.e.*"
    assert s.commit("e", 3) == "esexec.default.commit.e.3"
    assert s.commits_of("e") == "esexec.default.commit.e.*"
    assert s.task("q", 5, "e", "s", 1, 2) == "esexec.default.task.q.5.e.s.1-2"
    assert s.lane("q", 5) == "esexec.default.task.q.5.>"
    assert s.timer("e", "7") == "esexec.default.timer.e.7"
    assert s.due("e", "7") == "esexec.default.due.e.7"
    assert s.event("task_failed", "e") == "esexec.default.event.task_failed.e"
    assert s.dead("e", "start") == "esexec.default.dead.e.start"
    assert s.archive("e", 1) == "esexec.default.archive.e.1"
    assert s.live("e", "cancel") == "esexec.default.live.e.cancel"
    assert s.reply("e", "c") == "esexec.default.reply.e.c"


@given(queues, st.integers(0, 10), tokens, tokens, counts, counts)
def test_a_dispatch_is_read_as_it_was_written(
    queue: str, priority: int, execution: str, step: str, run: int, attempt: int
) -> None:
    """`parse_task` undoes `task`, and `parse_lane` undoes `lane_consumer`, for every legal name."""
    subject = subjects.task(queue, priority, execution, step, run, attempt)
    assert subjects.parse_task(subject) == (queue, priority, execution, step, run, attempt)
    assert subjects.parse_lane(subjects.lane_consumer(queue, priority)) == (queue, priority)


@given(tokens, queues, tokens, counts, counts)
def test_a_report_is_read_as_it_was_stored(execution: str, queue: str, step: str, run: int, attempt: int) -> None:
    """What the transform makes of a report's subject names the same execution and attempt."""
    published = subjects.report(execution, queue, step, run, attempt)
    stored = published.replace(f"esexec.ns-1.in.{execution}.", f"esexec.ns-1.inbox.15.{execution}.", 1)
    found = subjects.parse_inbox(stored)
    assert (found.execution, found.kind) == (execution, "report")
    assert subjects.parse_attempt(found.rest) == (queue, step, run, attempt)


@given(
    st.text()
    | st.lists(st.sampled_from(["inbox", "commands", "log", "due", "task", "1", "a", "1-1", "", "*", "ü"])).map(".".join)
)
def test_a_hostile_subject_is_one_typed_error(tail: str) -> None:
    """Whatever stands in a subject, a parser returns legal tokens or raises ValidationError."""
    parsers: list[Callable[[str], object]] = [
        subjects.parse_command,
        subjects.parse_inbox,
        subjects.parse_commit,
        subjects.parse_task,
        subjects.parse_due,
        lambda subject: subjects.parse_attempt(tuple(subject.split(".")[2:])),
        subjects.parse_lane,
    ]
    for parse in parsers:
        assert _code_of(parse, f"esexec.ns-1.{tail}") in (None, "subject_invalid")


def _code_of(parse: Callable[[str], object], subject: str) -> str | None:
    try:
        parse(subject)
    except ValidationError as error:
        return error.code
    return None


@pytest.mark.parametrize(
    "name", ["default", "default_p", "default_p11", "default_p05", "default_p-1", "default_p٣", "a.b_p5", "_p"]
)
def test_a_consumer_that_is_no_lane(name: str) -> None:
    """Anybody may tell of consumers: only what could be a lane of ours is one."""
    assert subjects.parse_lane(name) is None
