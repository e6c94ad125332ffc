"""Hooks: what can be attached, what they are called with, and that nothing they do comes back to who calls them."""

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from esexec import ValidationError, telemetry


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """Hooks belong to the process: none is left for the next test."""
    yield
    for id in list(telemetry._hooks):
        telemetry.detach(id)


def ignore(*_: Any) -> None: ...


# What can be attached ------------------------------------------------------------------------------------------------------


def test_a_hook_gets_four_arguments() -> None:
    """The event, its measurements, its metadata, and the config of `attach`."""
    got: list[Any] = []
    telemetry.attach("mine", ["my_app.sent", "my_app.lost"], lambda *given: got.append(given), {"unit": "s"})
    telemetry.execute("my_app.sent", {"duration": 1.5, "size": 3}, {"user_id": "u1"})
    telemetry.execute("my_app.lost", {"count": 1})
    telemetry.execute("my_app.other", {"count": 1})
    assert got == [
        ("my_app.sent", {"duration": 1.5, "size": 3}, {"user_id": "u1"}, {"unit": "s"}),
        ("my_app.lost", {"count": 1}, {}, {"unit": "s"}),
    ]


def test_detach_says_whether_there_was_one() -> None:
    """After it the hook is not called, and its id is free."""
    got: list[str] = []
    telemetry.attach("mine", "my_app.sent", lambda event, *_: got.append(event))
    assert telemetry.detach("mine")
    assert not telemetry.detach("mine")
    telemetry.execute("my_app.sent", {})
    telemetry.attach("mine", "my_app.sent", ignore)
    assert got == []


def test_an_id_is_attached_once() -> None:
    """A second hook of the same id is refused, and the first one stays."""
    got: list[str] = []
    telemetry.attach("mine", "my_app.sent", lambda event, *_: got.append(event))
    with pytest.raises(ValidationError) as refused:
        telemetry.attach("mine", "exec.stop", ignore)
    assert refused.value.code == "duplicate_hook"
    telemetry.execute("my_app.sent", {})
    assert got == ["my_app.sent"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("exec.strt", "did you mean `exec.start`?"),
        ("EXEC.START", "did you mean `exec.start`?"),
        ("exec.zzzzzzzz", "known: exec.start, exec.stop, exec.exception. A name of your own has a dot"),
        ("sent", "A name of your own has a dot"),
        ("my_app.", "A name of your own has a dot"),
        ("my app.sent", "A name of your own has a dot"),
        ("a." + "x" * 500, "A name of your own has a dot"),
        (7, "A name of your own has a dot"),
    ],
)
def test_an_event_that_cannot_be_is_refused(name: Any, hint: str) -> None:
    """What begins with `exec.` must be one of the engine's; anything else has a dot. The hint says which was meant."""
    with pytest.raises(ValidationError) as refused:
        telemetry.attach("mine", [name], ignore)
    assert refused.value.code == "unknown_telemetry_event"
    assert hint in str(refused.value.hint), refused.value.hint
    assert not telemetry.detach("mine")


@pytest.mark.parametrize("name", ["exec.stop", "Exec.mine", "sent", ""])
def test_a_name_that_is_not_one_s_own_cannot_be_told(name: str) -> None:
    """Whoever hears `exec.stop` knows that the engine told it; and a wrong name is refused also while nobody listens."""
    with pytest.raises(ValidationError) as refused:
        telemetry.execute(name, {})
    assert refused.value.code == "unknown_telemetry_event"


async def _late(*_: Any) -> None: ...


class _LateToo:
    async def __call__(self, *_: Any) -> None: ...


@pytest.mark.parametrize(
    ("id", "events", "fn"),
    [
        ("", "exec.stop", ignore),
        (None, "exec.stop", ignore),
        ("mine", [], ignore),
        ("mine", "exec.stop", _late),
        ("mine", "exec.stop", _LateToo()),
        ("mine", "exec.stop", "ignore"),
        ("mine", 5, ignore),
        ("mine", "exec.stop", lambda event: None),
        ("mine", "exec.stop", lambda event, measurements, metadata, config, more: None),
        ("mine", "exec.stop", lambda event, *, config: None),
    ],
)
def test_what_cannot_be_a_hook_is_refused(id: Any, events: Any, fn: Any) -> None:
    """It needs an id, events, and a function of four arguments that is not async: nobody would await it."""
    with pytest.raises(ValidationError) as refused:
        telemetry.attach(id, events, fn)
    assert refused.value.code == "invalid_hook"


# Nothing comes back --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(1), KeyboardInterrupt()])
def test_a_hook_that_throws_is_detached_with_one_warning(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it throws: the others are called, who told it goes on, and its id is free."""
    got: list[str] = []

    def throw(*_: Any) -> None:
        raise error

    telemetry.attach("bad", "my_app.sent", throw)
    telemetry.attach("good", "my_app.sent", lambda event, *_: got.append(event))
    telemetry.execute("my_app.sent", {})
    telemetry.execute("my_app.sent", {})
    assert got == ["my_app.sent"] * 2
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert caplog.records[0].getMessage() == f"hook 'bad' threw at my_app.sent, and is detached: {error!r}"
    assert not telemetry.detach("bad")


def test_a_hook_that_tells_itself_of_itself_is_detached(caplog: pytest.LogCaptureFixture) -> None:
    """It would go on for ever: it ends as one that throws, with its warning."""
    telemetry.attach("mine", "my_app.sent", lambda event, *_: telemetry.execute(event, {}))
    telemetry.execute("my_app.sent", {})
    assert [record.getMessage().split(",")[0] for record in caplog.records] == ["hook 'mine' threw at my_app.sent"]
    assert not telemetry.detach("mine")


def test_one_that_took_the_id_of_a_hook_that_throws_stays() -> None:
    """A hook that gives its id to another, and then throws, takes nobody else with it."""

    def give_way(*_: Any) -> None:
        telemetry.detach("mine")
        telemetry.attach("mine", "my_app.sent", ignore)
        raise ValueError

    telemetry.attach("mine", "my_app.sent", give_way)
    telemetry.execute("my_app.sent", {})
    assert telemetry.detach("mine")


def test_what_a_hook_does_to_its_arguments_stays_with_it() -> None:
    """Each hook has dictionaries of its own; those of the caller are not touched."""
    got: list[Any] = []
    measurements, metadata = {"size": 1}, {"user": "u"}

    def clear(event: str, measurements: dict[str, Any], metadata: dict[str, Any], config: Any) -> None:
        measurements.clear()
        metadata.clear()

    telemetry.attach("first", "my_app.sent", clear)
    telemetry.attach("second", "my_app.sent", lambda *given: got.append(given[1:3]))
    telemetry.execute("my_app.sent", measurements, metadata)
    assert got == [({"size": 1}, {"user": "u"})]
    assert (measurements, metadata) == ({"size": 1}, {"user": "u"})


def test_a_hook_may_attach_and_detach() -> None:
    """Also itself; what it attaches is not called for the event that is being told."""
    got: list[str] = []

    def once(event: str, *_: Any) -> None:
        got.append("once")
        telemetry.detach("once")
        telemetry.attach("next", event, lambda *_: got.append("next"))

    telemetry.attach("once", "my_app.sent", once)
    telemetry.execute("my_app.sent", {})
    telemetry.execute("my_app.sent", {})
    assert got == ["once", "next"]


def test_hooks_come_and_go_from_any_thread(caplog: pytest.LogCaptureFixture) -> None:
    """Many threads attach, tell and detach at once: no hook is lost or stays, and one that throws in all of them warns once."""
    threads, rounds = 8, 50
    heard: list[int] = []
    together = threading.Barrier(threads)

    def throw(*_: Any) -> None:
        together.wait(10)
        raise ValueError

    telemetry.attach("bad", "my_app.first", throw)

    def work(number: int) -> None:
        telemetry.execute("my_app.first", {})
        for turn in range(rounds):
            id = f"{number}-{turn}"
            telemetry.attach(id, f"my_app.of_{number}", lambda *_: heard.append(number))
            telemetry.execute(f"my_app.of_{number}", {})
            assert telemetry.detach(id)

    workers = [threading.Thread(target=work, args=[number]) for number in range(threads)]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join()
    assert sorted(heard) == sorted(list(range(threads)) * rounds)
    assert len(caplog.records) == 1
    assert telemetry._hooks == {}
