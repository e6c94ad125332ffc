"""The facade: every verb of an engine is one call of the client's, with the same arguments, and gives what that gives."""

import inspect
from typing import Any

import pytest

import esexec
from esexec import Client, Engine
from esexec.client import Alerts, Checkpoints, Monitor, Strategies
from esexec.client.resources import Resources

VERBS: dict[str, tuple[str, Any]] = {
    "execute": ("execute", Client.execute),
    "run": ("run", Client.run),
    "start": ("start", Client.start),
    "run_async": ("start", Client.start),
    "get_status": ("status", Client.status),
    "get_result": ("get", Client.get),
    "monitor": ("monitor", Monitor.__call__),
    "subscribe": ("monitor.subscribe", Monitor.subscribe),
    "unsubscribe": ("monitor.unsubscribe", Monitor.unsubscribe),
    "start_monitoring": ("monitor.start", Monitor.start),
    "stop_monitoring": ("monitor.stop", Monitor.stop),
    "get_metrics": ("monitor.metrics", Monitor.metrics),
    "get_timeline": ("monitor.timeline", Monitor.timeline),
    "get_resource_usage": ("monitor.resource_usage", Monitor.resource_usage),
    "pause": ("pause", Client.pause),
    "resume": ("resume", Client.resume),
    "cancel": ("cancel", Client.cancel),
    "retry": ("retry", Client.retry),
    "rollback": ("rollback", Client.rollback),
    "rollback_plan": ("rollback_plan", Client.rollback_plan),
    "create_checkpoint": ("checkpoints.create", Checkpoints.create),
    "restore_from_checkpoint": ("checkpoints.restore", Checkpoints.restore),
    "add_recovery_strategy": ("strategies.add", Strategies.add),
    "remove_recovery_strategy": ("strategies.remove", Strategies.remove),
    "allocate_resources": ("resources.allocate", Resources.allocate),
    "release_resources": ("resources.release", Resources.release),
    "set_alert": ("alerts.set", Alerts.set),
    "remove_alert": ("alerts.remove", Alerts.remove),
    "configure": ("configure", Client.configure),
}
"""Verb → where the client has it, and what it is there."""


class Recorder:
    """In a client's stead: writes down where it was called, and with what; the answer is awaitable where the client's is."""

    def __init__(self, path: str = "", calls: list[Any] | None = None) -> None:
        self.path: str = path
        self.calls: list[Any] = [] if calls is None else calls

    def __getattr__(self, name: str) -> "Recorder":
        return Recorder(f"{self.path}.{name}".lstrip("."), self.calls)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append((self.path, args, kwargs))
        answer = f"answer of {self.path}"

        async def later() -> str:
            return answer

        return answer if self.path == "monitor" else later()


def arguments_of(verb: str) -> tuple[list[Any], dict[str, Any]]:
    """A value of its own for every parameter of a verb."""
    positional, named = [], {}
    for parameter in list(inspect.signature(getattr(Engine, verb)).parameters.values())[1:]:
        match parameter.kind:
            case parameter.POSITIONAL_OR_KEYWORD:
                positional.append(f"<{parameter.name}>")
            case parameter.KEYWORD_ONLY:
                named[parameter.name] = f"<{parameter.name}>"
            case parameter.VAR_KEYWORD:
                named |= {"max_retries": 1, "priority": 8}
    return positional, named


def test_every_verb_is_tried() -> None:
    """Whatever is public of an engine stands in the table of this file."""
    public = {name for name, value in vars(Engine).items() if inspect.isfunction(value) and not name.startswith("_")}
    assert public == set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
async def test_a_verb_is_the_client_s(verb: str) -> None:
    """It is called once, with every argument, and its answer is given on."""
    recorder: Any = Recorder()
    positional, named = arguments_of(verb)
    answer = getattr(Engine.of(recorder), verb)(*positional, **named)
    answer = await answer if inspect.isawaitable(answer) else answer
    ((path, args, kwargs),) = recorder.calls
    where, theirs = VERBS[verb]
    assert path == where
    bound = inspect.signature(theirs).bind(None, *args, **kwargs).arguments
    assert bound == inspect.signature(theirs).bind(None, *positional, **named).arguments
    assert answer == (None if verb == "configure" else f"answer of {where}")


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_has_the_client_s_signature(verb: str) -> None:
    """Parameters, kinds, defaults and what comes back are the same."""
    ours, theirs = (inspect.signature(one) for one in (getattr(Engine, verb), VERBS[verb][1]))
    assert [(one.name, one.kind, one.default) for one in ours.parameters.values()] == [
        (one.name, one.kind, one.default) for one in theirs.parameters.values()
    ]
    assert str(ours.return_annotation).strip("'\"") == str(theirs.return_annotation).strip("'\"")


@pytest.mark.parametrize("said", [{"url": "nats://127.0.0.1:4222"}, {"namespace": "n"}, {"owner": None, "confirm_s": 1.0}])
def test_a_client_or_what_makes_one(said: dict[str, Any]) -> None:
    """Both at once are refused: one of them would be ignored."""
    with pytest.raises(esexec.ValidationError) as refused:
        Engine(client=Client(), **said)
    assert refused.value.code == "client_or_url"
    assert all(name in refused.value.message for name in said)


def test_what_an_engine_is_given_is_its_client_s() -> None:
    """Options mean what they mean for a client."""
    engine = Engine("nats://127.0.0.1:4333", namespace="n", owner="ada", confirm_s=1.0, patience=2.0, user="u", password="p")
    client = engine.client
    assert (client.url, client.namespace, client.owner) == ("nats://127.0.0.1:4333", "n", "ada")
    assert (client._confirm_s, client._patience, client._auth) == (1.0, 2.0, {"user": "u", "password": "p"})
