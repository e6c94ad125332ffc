"""What something was before a step changed it: recorded once, handed to every attempt, and what an inverse puts back."""

import pytest

from esexec.domain import events as e
from esexec.domain.decider import Surroundings
from esexec.domain.effects import dispatch_of
from esexec.domain.settings import TaskInfo
from tests.given import (
    before,
    checkpoint,
    completed,
    due,
    failed,
    fatal,
    given,
    restore,
    retry,
    start,
    step,
    undone,
)
from tests.unit.test_rollback import known, undo_of, undoable


@pytest.mark.parametrize(("task", "inverse"), [("update_x", "update_x"), ("delete_x", "create_x")])
def test_an_update_and_a_delete_are_undone_from_what_was_before(task: str, inverse: str) -> None:
    """The image's fields stand over params and output; without an image nothing is undone, and the reason is told."""
    around = known("update_x", "delete_x", "create_x")
    plan = start(step("a", task=task, params={"id": 1, "v": "new"}), "b")
    history = given(plan, before("a", {"id": 1, "v": "old"}), completed("a", {"v": "out", "k": 2}), fatal("b"), around=around)
    dispatch = dispatch_of(history.state, 0)
    assert (dispatch.task, dispatch.params, dispatch.before) == (inverse, {"id": 1, "v": "old", "k": 2}, {"id": 1, "v": "old"})
    assert undo_of(task, around) == (None, "no_before_image")


def test_a_compensation_of_ones_own_needs_no_image() -> None:
    """It gets the image if there is one, but its params are the step's."""
    around = Surroundings(tasks={"update_x": TaskInfo(compensate="put_back")})
    history = given(start(step("a", task="update_x", params={"v": 1}), "b"), around=around)
    for message in (before("a", {"v": 0}), completed("a"), fatal("b")):
        history.happen(message)
    dispatch = dispatch_of(history.state, 0)
    assert (dispatch.task, dispatch.params, dispatch.before) == ("put_back", {"v": 1}, {"v": 0})


@pytest.mark.parametrize("who", ["step", "task"])
def test_a_compensation_that_is_named_needs_no_image_whatever_its_name(who: str) -> None:
    """Only an inverse that was found by its name puts back an image: `update_x` said to undo `update_x` has the step's params."""
    said = TaskInfo(compensate="update_x") if who == "task" else TaskInfo()
    around = Surroundings(tasks={"update_x": said})
    fields = {"compensate": "update_x"} if who == "step" else {}
    assert undo_of("update_x", around, **fields) == ("update_x", None)
    history = given(start(step("a", task="update_x", params={"v": 1}, **fields), "b"), around=around)
    for message in (before("a", {"v": 0}), completed("a"), fatal("b")):
        history.happen(message)
    assert dispatch_of(history.state, 0).params == {"v": 1}


def test_the_first_image_stands() -> None:
    """Of an attempt, and of all attempts of a step: what a retry sees is no longer what was before."""
    history = given(start(step("a", task="update_x")), around=known("update_x"))
    history.when(before("a", 1)).then(e.BeforeImageRecorded(step="a", image=1))
    history.when(before("a", 2)).then_nothing("ineffective")
    history.happen(failed("a"))
    history.happen(due("a"))
    assert dispatch_of(history.state, 0).before == 1
    history.when(before("a", 3, 2)).then_nothing("ineffective")
    assert history.state.images == {0: 1}


def test_none_is_an_image_too() -> None:
    """What was not there before is a state like any other."""
    history = given(start("a"), before("a", None))
    assert history.state.images == {0: None}
    assert dispatch_of(history.state, 0).before is None


def test_a_run_later_the_first_image_still_stands() -> None:
    """A re-run after a restore or a retry changes what was changed already; only undoing it makes the image worthless."""
    history = given(start(step("a", task="update_x"), "b"), checkpoint(), around=known("update_x"))
    for message in (before("a", {"v": 0}), completed("a"), restore("e1.4")):
        history.happen(message)
    history.when(before("a", {"v": 1}, run=2)).then_nothing("ineffective")
    history.happen(completed("a", run=2))
    history.happen(fatal("b", run=2))
    assert dispatch_of(history.state, 0).params == {"v": 0}


def test_an_undone_step_forgets_its_image() -> None:
    """What comes after the undoing is a new beginning, with an image of its own."""
    history = given(start(step("a", task="update_x"), "b"), around=known("update_x"))
    for message in (before("a", {"v": 0}), completed("a"), fatal("b"), undone("a"), retry()):
        history.happen(message)
    assert history.state.images == {}
    history.when(before("a", {"v": 5}, run=2)).then(e.BeforeImageRecorded(step="a", run=2, image={"v": 5}))


def test_only_work_has_images() -> None:
    """What an undoing says was before is nobody's to undo; a late image of a closed attempt is stale."""
    history = given(start("a", "b"), completed("a"), fatal("b"), around=undoable())
    history.when(before("a", 1, 2)).then_nothing("ineffective")
    history.when(before("a", 1)).then_nothing("stale")
