"""Who did what: the actor of every command is in its commit, however many it has, and is told where the history is."""

from datetime import datetime

import msgspec
import pytest

from esexec.client.actor import actor_of
from esexec.domain import commands as c
from esexec.domain import events as e
from esexec.domain.commit import Cause, Commit, actors_of, signed
from esexec.domain.decider import decide_message
from esexec.domain.decision import Decision
from esexec.domain.errors import ValidationError
from esexec.domain.state import ExecutionState
from esexec.log import codec
from esexec.nats.address import Auth, user_of
from projections.actors import actors_by_event
from projections.timeline import timeline
from tests.given import EXECUTION, at, completed, start


def commit_of(*messages: object, n: int = 1) -> Commit:
    """A commit that all of these were decided into, as an executor does with what has gathered; read again from its bytes."""
    state = ExecutionState(EXECUTION)
    decision = Decision(state, at(0))
    for message in messages:
        verdict = decide_message(decision, message, at(len(decision.causes)))  # type: ignore[arg-type]
        assert verdict.kind == "applied", (message, verdict)
    actor, causes = signed(decision.causes)
    events = tuple(decision.events)
    commit = Commit(v=1, execution_id=EXECUTION, n=n, version=1, time=at(0), commands=causes, actor=actor, events=events)
    return codec.decode(codec.encode(commit))


def pause(actor: str | None, id: str = "p") -> c.PauseExecution:
    return c.PauseExecution(id=id, actor=actor)


def told(commit: Commit) -> dict[str, str | None]:
    """Who is told to have done what, by the type of the event."""
    return {entry.type: entry.actor for entry in timeline([commit]) if entry.actor is not None}


def test_one_command_s_actor_is_the_commit_s() -> None:
    """The usual commit is as it always was: the actor stands there once, and no cause has one."""
    commit = commit_of(start("a", actor="ada"))
    assert (commit.actor, commit.commands[0].actor) == ("ada", None)
    assert b'"commands":[{"id":"c1","time":"2026-01-01T00:00:00Z"}],"actor":"ada"' in codec.encode(commit)


def test_several_commands_keep_an_actor_each() -> None:
    """Of commands by several people in one commit, each stands with its own; so is one that nobody signed."""
    commit = commit_of(start("a", actor="ada"), pause("bob"), c.ResumeExecution(id="r"))
    assert list(actors_of(commit)) == ["ada", "bob", None]
    assert commit.actor == "ada"
    assert told(commit) == {"execution_created": "ada", "execution_paused": "bob"}


def test_commands_of_the_same_actor_say_so_once() -> None:
    """Several commands that all came from one: the commit's actor is enough, and a report between them has none."""
    commit = commit_of(start("a", "b", actor="ada"), completed("a"), pause("ada"))
    assert [cause.actor for cause in commit.commands] == [None, None, None]
    assert list(actors_of(commit)) == ["ada", "ada"]
    assert told(commit) == {"execution_created": "ada", "execution_paused": "ada"}


def test_what_a_worker_reports_is_nobody_s_command() -> None:
    """An event that came of a report is not told as the doing of whoever gave a command in the same commit."""
    commit = commit_of(start("a", "b"), completed("a"), c.CreateCheckpoint(id="k", actor="bob"))
    assert told(commit) == {"checkpoint_created": "bob"}


def test_old_commits_are_read_as_they_were() -> None:
    """A commit from before causes had actors: the one that it names is meant for each of its commands."""
    old = commit_of(start("a"), pause(None))
    old = msgspec.structs.replace(old, actor="ada")
    assert told(old) == {"execution_created": "ada", "execution_paused": "ada"}


@pytest.mark.parametrize(
    ("events", "causes", "expected"),
    [
        ((e.PlanStored(plan_id="0", plan=msgspec.Raw(b"{}")),), (Cause("c", at(0)),), {0: "ada"}),
        ((e.RequestGranted(request_id="c"), e.RequestGranted(request_id="e1/s/1-1")), (Cause("c", at(0)),), {0: "ada"}),
        ((e.KeyBound(key="k", execution_id="e1"),), (), {0: "ada"}),
        ((e.RollbackStarted(), e.CheckpointCreated(checkpoint_id="e1.2", by="task")), (Cause("c", at(0)),), {}),
    ],
)
def test_only_what_was_wished_has_an_actor(
    events: tuple[e.Event, ...], causes: tuple[Cause, ...], expected: dict[int, str]
) -> None:
    """What follows from something else than a command, though it is in the same commit, has none."""
    commit = Commit(v=1, execution_id="_x", n=1, version=1, time=at(0), commands=causes, actor="ada", events=events)
    assert actors_by_event(commit) == expected


def test_two_wishes_that_came_to_one_event_are_not_guessed() -> None:
    """Where commands and events cannot be told apart, nobody is named rather than the wrong one."""
    causes = (Cause("a", at(0), "ada"), Cause("b", at(0), "bob"))
    events = (e.CheckpointCreated(checkpoint_id="e1.2"),)
    commit = Commit(v=1, execution_id="e1", n=1, version=1, time=at(0), commands=causes, actor="ada", events=events)
    assert actors_by_event(commit) == {}


def test_a_cause_s_actor_survives_the_log() -> None:
    """The field is added: what was stored without it is the same bytes as ever."""
    plain, with_actor = Cause("c", at(0)), Cause("c", at(0), "ada")
    assert msgspec.json.encode(plain) == b'{"id":"c","time":"2026-01-01T00:00:00Z"}'
    assert msgspec.json.decode(msgspec.json.encode(with_actor), type=Cause) == with_actor


JWT = (
    "-----BEGIN NATS USER JWT-----\n"
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5LW5rZXkifQ.eyJuYW1lIjoiYWRhIiwic3ViIjoiVUFCQyJ9.c2ln\n"
    "------END NATS USER JWT------\n"
)


@pytest.mark.parametrize(
    ("url", "auth", "user"),
    [
        ("nats://h:4222", {}, None),
        ("h:4222", {}, None),
        ("nats://ada:secret@h:4222", {}, "ada"),
        ("nats://h:1,nats://a%20b:secret@h:2", {}, "a b"),
        ("nats://token@h:4222", {}, None),
        ("nats://ada:secret@h:4222", {"user": "bob", "password": "p"}, "bob"),
        ("nats://h", {"token": "t"}, None),
        ("nats://h", {"credentials": "/nowhere"}, None),
        ("nats://h", {"credentials": "CREDS"}, "ada"),
        ("nats://h", {"credentials": "BROKEN"}, None),
    ],
)
def test_the_nats_user_is_whom_we_connect_as(url: str, auth: Auth, user: str | None, tmp_path: object) -> None:
    """From the option, a creds file or the URL; a token names nobody, and neither does a file that cannot be read."""
    files = {"CREDS": JWT, "BROKEN": JWT.replace("eyJuYW1l", "!")}
    if (name := auth.get("credentials")) in files:
        file = f"{tmp_path}/creds"
        with open(file, "w") as out:
            out.write(files[str(name)])
        auth = {"credentials": file}
    assert user_of(url, auth) == user


def test_what_is_said_comes_before_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given, else the environment, else the NATS user, else nobody."""
    url = "nats://ada:secret@h"
    monkeypatch.setenv("ESEXEC_ACTOR", "eve")
    assert actor_of("bob", url, {}) == "bob"
    assert actor_of(None, url, {}) == "eve"
    monkeypatch.setenv("ESEXEC_ACTOR", "")
    assert actor_of(None, url, {}) == "ada"
    assert actor_of(None, "nats://h", {}) is None


@pytest.mark.parametrize("name", ["x" * 257, "a\nb", "\x1b[31m"])
def test_a_name_is_one_printable_line(name: str) -> None:
    """What could not stand in a command, or would garble a history, is refused before anything is sent."""
    with pytest.raises(ValidationError) as refused:
        actor_of(name, "nats://h", {})
    assert refused.value.code == "bad_actor"


def test_the_moment_of_a_command_is_told() -> None:
    """A timeline's entry has the actor beside time and version."""
    (entry, *_) = timeline([commit_of(start("a", actor="ada"))])
    assert (entry.actor, entry.version) == ("ada", 1)
    assert isinstance(entry.time, datetime)
