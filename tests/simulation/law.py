"""What the documents say of one execution's history, once more and from its JSON alone: nothing of esexec is read here.

`Law.read` takes commits in order and keeps what is wrong in `problems`. What it knows of the execution serves the other checks:
what is open, which timers it needs, in which situation it was when a command was judged.
"""

import json
from typing import Any

from tests.simulation.known import Event, Life
from tests.simulation.law_of_steps import LawOfSteps

ENDS = {
    "execution_completed": "completed",
    "execution_failed": "failed",
    "execution_cancelled": "cancelled",
    "execution_rolled_back": "rolled_back",
}
AFTER_THE_END = {
    "execution_retried",
    "execution_forked",
    "checkpoint_restored",
    "rollback_started",
    "execution_deadline_set",
}
_OF_COMMANDS = {
    "execution_cancel_requested",
    "execution_paused",
    "execution_resumed",
    "execution_retried",
    "execution_forked",
}


_SET_THE_COURSE = {
    "execution_created",
    "execution_cancel_requested",
    "execution_paused",
    "execution_resumed",
    "execution_retried",
}
_SET_THE_COURSE_ON_COMMAND = {"checkpoint_restored": "command", "rollback_started": "failure"}
"""By event, what it is `by` if it says nothing."""


def _sets_the_course(event: Event) -> bool:
    """Whether a wish from before it is out of date. What the execution decides by itself sets no course."""
    kind = event["type"]
    by_itself = _SET_THE_COURSE_ON_COMMAND.get(kind)
    return kind in _SET_THE_COURSE if by_itself is None else event.get("by", by_itself) == "command"


class Law(LawOfSteps):
    """See the module. One method for each event, called as it."""

    # Reading ---------------------------------------------------------------------------------------------------------------

    def read(self, commit: dict[str, Any]) -> None:
        """The next commit."""
        self.n = commit["n"]
        types = {event["type"] for event in commit["events"]}
        course = any(_sets_the_course(event) for event in commit["events"])
        for event in commit["events"]:
            self.version += 1
            self._event(event)
            self.situations.append((self.n, self.situation))
        for cause in commit.get("commands", ()):
            kind, _, about = cause["id"].partition("/")
            step, _, attempt = about.partition("/")
            if kind == "withdrawn" and attempt == f"{self.run}-{self.lives[step].attempt}" and not self.lives[step].open:
                self.untouched.append((step, self.run, self.lives[step].attempt))
        if self.next is not None:
            self._wrong(f"the commit ends before {self.next}")
        for cause in commit.get("commands", ()):
            if "/" not in cause["id"]:
                self.causes.append((self.n, cause["id"], cause["time"], course))
        wishes = [event for event in commit["events"] if event["type"] in _OF_COMMANDS]
        commands = [cause for cause in commit.get("commands", ()) if "/" not in cause["id"]]
        if len(wishes) > len(commands):
            self._wrong(f"nobody wished {types & _OF_COMMANDS}")

    def _event(self, event: Event) -> None:
        kind = event["type"]
        if self.version == 1:
            self._must(kind == "execution_created", "it does not begin with its creation")
        if self.next is not None:
            self._must((kind, event.get("step", "")) == self.next, f"{kind} where {self.next} must follow")
            self.next = None
        self._must(self.ended is None or kind in AFTER_THE_END, f"{kind} after the end")
        if "step" in event and kind != "execution_retried":
            self._must(event.get("run", 1) == self.run, f"{kind} of run {event.get('run', 1)} in run {self.run}")
        read = getattr(self, f"_{kind}", None)
        if read is None:
            self._wrong(f"nothing is known of {kind}")
        else:
            read(event)

    # Executions ---------------------------------------------------------------------------------------------------------

    def _execution_created(self, event: Event) -> None:
        self.created, self.plan = event, event["plan"]
        self.steps = {step["id"]: step for step in self.plan["steps"]}
        self.lives = {step: Life() for step in self.steps}
        for step, output in event.get("kept", {}).items():
            life = self.lives[step]
            life.settled, life.done, life.output = "completed", True, output

    def _execution_started(self, event: Event) -> None:
        self._must(not self.started and not self.stopping and not self.paused, "started twice, or although it should not")
        self.started = True
        self._next_checkpoint()

    def _next_checkpoint(self) -> None:
        if self.config("checkpoint_interval_ms") and not self.automatic_off:
            self.checkpoint_timer = self.version

    def _execution_deadline_set(self, event: Event) -> None:
        self._must(self.ended is None, "a deadline of no run")
        self.deadline = self.version

    def _execution_deadline_exceeded(self, event: Event) -> None:
        self._must(self.deadline and self.undoing is None and not self.cancelled, "no deadline was set, or it was cancelled")
        self._hold_what_is_new()
        self.deadline, self.grace = 0, self.version
        self.failing = self.stopping = True

    def _execution_paused(self, event: Event) -> None:
        self._must(not self.paused and not self.cancelled, "paused twice, or while it is cancelled")
        self._hold_what_is_new()
        self.paused = True

    def _execution_resumed(self, event: Event) -> None:
        self._must(self.paused, "resumed although it was not paused")
        self.paused = False
        for life in self.lives.values():
            if life.held:
                life.held, life.opened = False, self.n

    def _execution_cancel_requested(self, event: Event) -> None:
        self._must(not self.cancelled, "cancelled twice")
        self._hold_what_is_new()
        for step, life in self.lives.items():
            if life.open == "compensation" and life.held:
                self.untouched.append((step, self.run, life.attempt))
                self._close(life)  # it is not handed out again
        self.cancelled, self.paused, self.stopping, self.grace = "requested", False, True, self.version

    def _execution_completed(self, event: Event) -> None:
        self._must(not self.failed and not self.stopping and self.undoing is None, "completed although it did not")
        self._must(all(life.done or life.unwanted for life in self.lives.values()), "completed although not every step is done")
        self._end(event)

    def _execution_failed(self, event: Event) -> None:
        self._must(self.failed or self.failing or self.undoing is not None, "failed for no reason")
        self._must(not self.cancelled, "failed although it was cancelled")
        self.partial = event.get("rollback_status") == "partial"
        self._must(self.partial == (self.undoing is not None), "a wrong rollback_status")
        if self.undoing is not None:
            strict = self.config("on_missing_compensation") == "fail" and self.skipped
            self._must(not self.undoing, "failed before its rollback was over")
            self._must(self.not_undone or not self.undone or strict, "everything was undone, and it is called partial")
            self._must(set(event.get("not_undone", ())) == self._standing(), f"{self._standing()} stand")
        elif not self.cancelled and self.config("enable_rollback") is not False and not self.config("continue_on_error"):
            self._must(not self.can_undo(), "failed, and what it did was not undone")
        self._end(event)

    def _execution_cancelled(self, event: Event) -> None:
        self._must(self.cancelled, "cancelled without a wish")
        rolled_back = None if self.undoing is None else "partial" if self.deeds else "completed"
        self._must(event.get("rollback_status") == rolled_back, f"its rollback is {rolled_back}")
        left = self._standing() if rolled_back == "partial" else set()
        self._must(set(event.get("not_undone", ())) == left, f"{left} stand")
        self.partial = False
        self._end(event)

    def _execution_rolled_back(self, event: Event) -> None:
        self._must(self.undoing == [], "rolled back before everything was undone")
        self._must(self.undone and not self.not_undone, "rolled back although something was not undone")
        self._must(not self.skipped or self.config("on_missing_compensation") != "fail", "what nothing undoes was to fail it")
        left = [done for done in self.deeds if self.undo_of(done) is not None and not self._lacks_image(done)]
        self._must(not left, f"rolled back, and {left} still stand")
        self._must(event["undone"] == self.undone, "it counts wrong")
        self._end(event)

    def _standing(self) -> set[str]:
        return {done.step for done in self.deeds}

    def _end(self, event: Event) -> None:
        self.ended = ENDS[event["type"]]
        not_settled = [step for step, life in self.lives.items() if life.settled is None]
        self._must(not not_settled, f"{event['type']} while {not_settled} have not ended")
        self._must(not self.open_attempts, f"{event['type']} while {self.open_attempts} are open")
        self.paused = False
        self.deadline = self.grace = self.checkpoint_timer = 0
        for life in self.lives.values():
            life.retry = life.queue = 0

    # Runs ----------------------------------------------------------------------------------------------------------------

    def _execution_retried(self, event: Event) -> None:
        self._must(self.ended in ("failed", "cancelled", "rolled_back"), f"retried while it is {self.situation}")
        kept = {} if self.ended == "rolled_back" else self._done_and_standing()
        if (only := event.get("step")) is not None and self.ended != "rolled_back":
            self._must(self.lives[only].settled == "failed", f"{only} had not failed")
            out = [step for step in self.failed if step != only]
            while out:
                step = out.pop()
                if step not in kept and step != only:
                    kept[step] = self.lives[step]
                    out += [other for other, spec in self.steps.items() if step in spec.get("depends_on", ())]
        self._begin_run(event, kept, fresh=True)

    def _done_and_standing(self) -> dict[str, Life]:
        return {step: self.lives[step] for step in self.completed()}

    def _checkpoint_restored(self, event: Event) -> None:
        self._must(event["checkpoint_id"] in self.checkpoints, "there is no such checkpoint")
        self._must(self.ended is not None or not (self.cancelled or self.undoing is not None), f"restored: {self.situation}")
        self._must(self.started or self.ended, "restored before it began")
        self._hold_what_is_new()
        lives, self.vars = self.checkpoints.get(event["checkpoint_id"], ({}, {}))
        named = {f"{step}/{attempt}" for step, _, attempt in self.open_attempts}
        self._must(set(event.get("abandoned", ())) == named, f"{named} were open")
        by_recovery = event.get("by") == "recovery"
        self._must(not by_recovery or event["checkpoint_id"] == self.checkpoint, f"the last checkpoint was {self.checkpoint}")
        self.checkpoint = event["checkpoint_id"]
        for abandoned in event.get("abandoned", ()):
            step = abandoned.partition("/")[0]
            if self.lives[step].held:
                self.untouched.append((step, self.run, self.lives[step].attempt))
                continue
            self.abandoned.append((step, self.run, self.lives[step].attempt))
            if self.lives[step].open in ("task", "fallback"):
                self._perhaps_done(step)
        self._set_vars(event)
        kept = {step: life for step, life in lives.items() if life.done and not life.undone}
        for life in kept.values():
            if life.deed is not None:
                self._stands(life.deed)
        self.deeds = dict(sorted(self.deeds.items(), key=lambda done: done[1].since))
        self._begin_run(event, kept, fresh=event.get("by", "command") == "command")

    def _begin_run(self, event: Event, kept: dict[str, Life], *, fresh: bool) -> None:
        self._must(event["run"] == self.run + 1, f"run {event['run']} after run {self.run}")
        self.run = event["run"]
        for step, life in self.lives.items():
            self.past.setdefault(step, []).append(life)
            new = kept.get(step) or Life()
            if not fresh and step not in kept:
                new.recoveries = life.recoveries
            elif fresh:
                new.recoveries = 0
            self.lives[step] = new
        self.failed = [step for step, life in self.lives.items() if life.settled == "failed"]
        self.ended, self.cancelled, self.undoing = None, "", None
        self.failing = self.stopping = self.partial = False
        self.started = True
        self.grace = 0
        if fresh:
            self.deadline = 0
        self._next_checkpoint()

    def _execution_forked(self, event: Event) -> None:
        self._must(self.ended in ("failed", "cancelled", "rolled_back"), f"forked while it is {self.situation}")
        self._must(event.get("all_again", False) == (self.ended == "rolled_back"), "all again is for what was rolled back")
        self.forks.setdefault(event["new_id"], []).append({} if event.get("all_again") else self.completed())

    def _checkpoint_created(self, event: Event) -> None:
        self._must(event["checkpoint_id"] == f"{self.entity}.{self.version}", "a checkpoint is named by its version")
        self._must(not self.cancelled and self.undoing is None, f"a checkpoint while it is {self.situation}")
        done = {step: life for step, life in self.lives.items() if life.done}
        self.checkpoints[event["checkpoint_id"]] = (done, self.vars)
        self.checkpoint = event["checkpoint_id"]
        if event.get("by") == "interval":
            self._next_checkpoint()

    def _checkpoint_failed(self, event: Event) -> None:
        self._must(not self.automatic_off, "it was told before that no more checkpoints are made")
        self.automatic_off, self.checkpoint_timer = True, 0


def law_of(entity: str, commits: list[bytes]) -> Law:
    """A whole history at once."""
    law = Law(entity)
    for data in commits:
        law.read(json.loads(data))
    return law
