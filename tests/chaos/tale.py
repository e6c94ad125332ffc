"""What may follow what in one history, told a second time: a small model of executions that imports nothing of esexec."""

import json
import re
from collections.abc import Iterable
from typing import Any

from tests.chaos.tale_of_grants import OF_SHARED
from tests.chaos.tale_of_steps import WORK, Rollback, StepTale, TaleOfSteps

_REFERENCE = re.compile(r"\$\{steps\.([\w-]+)")
REVIVE = frozenset({"execution_retried", "checkpoint_restored", "rollback_started", "execution_forked"})
SHARED = frozenset(
    {
        "key_bound",
        "namespace_configured",
        "tasks_announced",
        "strategy_added",
        "strategy_removed",
        "plan_stored",
        "plan_listed",
        "alert_set",
        "alert_removed",
        "compacted",
        *OF_SHARED,
    }
)


class Tale(TaleOfSteps):
    """A history, event by event: `tell` says what is wrong with the next one, or None."""

    @property
    def position(self) -> str:
        """Where it stands, in few words."""
        shown = {name: step for name, step in self.steps.items() if step.open or step.due or step.owed}
        told = [f"{name}#{step.attempt} {step.open or ''} due {step.due} owed {step.owed}" for name, step in shown.items()]
        settled = sum(step.settled is not None for step in self.steps.values())
        flags = [name for name in ("paused", "cancel_requested", "expired", "failed", "rollback") if getattr(self, name)]
        return f"run {self.run}: {settled} of {len(self.steps)} steps settled, {told} {flags}"

    def caused_by(self, commands: Iterable[str]) -> str | None:
        """A commit was decided upon these, and is over."""
        self.commit += 1
        for command in commands:
            self.commands[command] += 1
            if self.commands[command] > 1 and "/" not in command:
                return f"the command {command} was carried out twice"
        return None

    def tell(self, event: dict[str, Any]) -> str | None:
        """The next event."""
        self.version += 1
        kind = event["type"]
        self.told[kind] += 1
        if self.entity.startswith("_"):
            return self._shared(kind, event)
        if self.end is not None and kind not in REVIVE:
            return f"{kind} after {self.end}"
        if kind == "execution_created":
            return self._create(event)
        if not self.created:
            return f"{kind} before execution_created"
        if self.owed_restore and kind != "checkpoint_restored":
            return f"{kind} where a restore was promised"
        if "step" in event and kind != "execution_retried":
            return self._of_step(kind, event)
        tell = getattr(self, f"_{kind}", None)
        return tell(event) if tell is not None else f"an event of a type that is not known: {kind}"

    def _shared(self, kind: str, event: dict[str, Any]) -> str | None:
        if kind == "key_bound":
            if self.bound is not None:
                return "a key was bound twice"
            self.bound = (event["key"], event["execution_id"])
        return None if kind in SHARED else f"{kind} in the history of {self.entity}"

    def _create(self, event: dict[str, Any]) -> str | None:
        if self.created:
            return "created twice"
        self.created = True
        self.idempotency_key = event.get("idempotency_key")
        ids = [step["id"] for step in event["plan"]["steps"]]
        for step in event["plan"]["steps"]:
            needs = (ids[need] if isinstance(need, int) else need for need in step.get("depends_on", ()))
            referred = [name for name in _REFERENCE.findall(json.dumps(step.get("params"))) if name in ids]
            self.steps[step["id"]] = StepTale(frozenset([*needs, *referred]))
        for name in event.get("kept", {}):
            self._settle(self.steps[name], "completed")
        return None

    # The execution -------------------------------------------------------------------------------------------------------

    def _execution_queued(self, event: dict[str, Any]) -> str | None:
        before, self.asked_for_slot = self.asked_for_slot, self.run
        return "queued twice, or as another run" if before or event.get("run", 1) != self.run else None

    def _execution_granted(self, event: dict[str, Any]) -> str | None:
        asked, self.asked_for_slot = self.asked_for_slot, 0
        return "granted what it did not ask for" if asked != event.get("run", 1) else None

    def _execution_started(self, event: dict[str, Any]) -> str | None:
        began, self.began = self.began, True
        if self.asked_for_slot:
            return "started without its slot"
        if self.cancel_requested or self.expired:
            return "started although it ends"
        return "started twice" if began else "started while it is paused" if self.paused else None

    def _execution_deadline_set(self, event: dict[str, Any]) -> str | None:
        return None

    def _execution_deadline_exceeded(self, event: dict[str, Any]) -> str | None:
        if self.cancel_requested or self.expired or self.rollback is not None:
            return "a deadline passed that did not count any more"
        self._hold_what_is_new()
        self.expired = True
        return None

    def _execution_paused(self, event: dict[str, Any]) -> str | None:
        self._hold_what_is_new()
        was, self.paused = self.paused, True
        return "paused twice" if was else "paused while it is cancelled" if self.cancel_requested else None

    def _execution_resumed(self, event: dict[str, Any]) -> str | None:
        was, self.paused = self.paused, False
        for step in self.steps.values():
            if step.held:
                step.held, step.opened = False, self.commit
        return None if was else "resumed without a pause"

    def _execution_cancel_requested(self, event: dict[str, Any]) -> str | None:
        self._hold_what_is_new()
        asked, self.cancel_requested, self.paused = self.cancel_requested, True, False
        for step in self.steps.values():
            if step.held and step.open == "compensation":  # nobody has it, and nobody will
                step.open, step.held = None, False
        return "cancel requested twice" if asked else None

    def _execution_forked(self, event: dict[str, Any]) -> str | None:
        return None if self.end not in (None, "completed") else f"forked while it is {self.end}"

    def _execution_completed(self, event: dict[str, Any]) -> str | None:
        wrong = self.failed or self.cancel_requested or self.expired or self.rollback is not None
        return self._ended("completed", wrong)

    def _execution_failed(self, event: dict[str, Any]) -> str | None:
        wrong = self.cancel_requested or not (self.failed or self.expired or self.rollback is not None)
        partial = event.get("rollback_status") == "partial"
        return self._ended("failed", wrong or partial != (self.rollback is not None))

    def _execution_cancelled(self, event: dict[str, Any]) -> str | None:
        rolled_back = None if self.rollback is None else "partial" if self.standing else "completed"
        return self._ended("cancelled", not self.cancel_requested or event.get("rollback_status") != rolled_back)

    def _execution_rolled_back(self, event: dict[str, Any]) -> str | None:
        back = self.rollback
        wrong = back is None or bool(back.failed) or not back.undone or back.undone != event["undone"]
        return self._ended("rolled_back", wrong or self.cancel_requested)

    def _ended(self, end: str, wrong: bool) -> str | None:
        self.end, self.paused = end, False
        left = [name for name, step in self.steps.items() if step.settled is None or step.open or step.owed]
        if left:
            return f"{end} while {left} have not ended"
        if self.rollback is not None and not self.cancel_requested and self.rollback.at < len(self.rollback.order):
            return f"{end} while {self.rollback.order[self.rollback.at :]} are to be undone"
        return f"{end}, which it should not: {self.position}" if wrong else None

    # Runs ----------------------------------------------------------------------------------------------------------------

    def _execution_retried(self, event: dict[str, Any]) -> str | None:
        if self.end in (None, "completed"):
            return f"retried while it is {self.end}"
        completed = {name: step for name, step in self.steps.items() if step.settled == "completed" and self._is_kept(step)}
        keep = {} if self.end == "rolled_back" else completed
        only = event.get("step")
        if only is not None and self.end != "rolled_back":
            out = [name for name, step in self.steps.items() if step.settled == "failed" and name != only]
            while out:
                name = out.pop()
                if name not in keep and name != only:
                    keep[name] = self.steps[name]
                    out += [other for other, step in self.steps.items() if name in step.needs]
        return self._begin_run(event["run"], keep)

    def _checkpoint_created(self, event: dict[str, Any]) -> str | None:
        if self.cancel_requested or self.rollback is not None:
            return "a checkpoint of an execution that is cancelled or rolled back"
        self.checkpoints[event["checkpoint_id"]] = {name: step for name, step in self.steps.items() if step.done}
        return None if event["checkpoint_id"] == f"{self.entity}.{self.version}" else "a checkpoint with the wrong id"

    def _checkpoint_failed(self, event: dict[str, Any]) -> str | None:
        return None

    def _checkpoint_restored(self, event: dict[str, Any]) -> str | None:
        if self.end is None and (self.cancel_requested or self.rollback is not None):
            return "restored while it is cancelled or rolled back"
        kept = self.checkpoints.get(event["checkpoint_id"])
        if kept is None:
            return f"there is no checkpoint {event['checkpoint_id']}"
        if (event.get("by") == "recovery") != self.owed_restore:
            return "restored by a strategy that did not ask for it, or not by the one that did"
        self._hold_what_is_new()
        open_ = {f"{name}/{step.attempt}" for name, step in self.steps.items() if step.open}
        held = {f"{name}/{step.attempt}" for name, step in self.steps.items() if step.open and step.held}
        for abandoned in event.get("abandoned", ()):
            name = abandoned.rpartition("/")[0]
            if name in self.steps and self.steps[name].open in WORK and not self.steps[name].held:
                self._perhaps(self._deed(name, self.steps[name]))
        self.owed_restore = False
        kept = {name: step for name, step in kept.items() if self._is_kept(step)}
        self._stand_again(kept)
        problem = self._begin_run(event["run"], kept)
        return problem or (None if open_ - held <= set(event.get("abandoned", ())) <= open_ else f"open were {open_}")

    def _stand_again(self, kept: dict[str, StepTale]) -> None:
        """What kept steps did then counts again, whatever they did since."""
        for name, step in kept.items():
            if step.deed is not None:
                self._stands(step.deed, step.settled_at)
                self.uncertain.discard(step.deed)
                if self.undone_at.get(name, 0) > step.settled_at:  # of two deeds in one place the later was undone
                    self.uncertain.add(step.deed)
        self.standing = dict(sorted(self.standing.items(), key=lambda one: one[1]))

    def _is_kept(self, step: StepTale) -> bool:
        return step.done and step.settled_at not in self.undone

    def _begin_run(self, run: int, keep: dict[str, StepTale]) -> str | None:
        before, self.run = self.run, run
        self.steps = {name: keep.get(name) or StepTale(step.needs) for name, step in self.steps.items()}
        for step in keep.values():
            step.undoing = False
        self.began, self.end, self.rollback = True, None, None
        self.cancel_requested = self.expired = False
        self.failed = any(step.settled == "failed" for step in self.steps.values())
        return None if run == before + 1 else f"run {run} after run {before}"

    def _rollback_started(self, event: dict[str, Any]) -> str | None:
        left = [name for name, step in self.steps.items() if step.settled is None or step.open]
        by_command = event.get("by") == "command"
        wrong = by_command != (self.end is not None) or bool(left) or not self.standing
        if not by_command:
            wrong = wrong or self.cancel_requested or self.rollback is not None or not (self.failed or self.expired)
        self.end, self.cancel_requested, self.expired = None, False, False
        self.rollback = Rollback(self._order_of_undoing())
        for step in self.steps.values():
            step.undoing, step.due = False, 0
        return f"rolled back too early, or for nothing: {left}" if wrong else None
