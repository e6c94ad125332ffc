"""What is known of an execution from the JSON of its history; the laws that its events must keep stand in `law`."""

import re
from typing import Any, NamedTuple

Event = dict[str, Any]


class Done(NamedTuple):
    """What is undone at most once: what a step, or the fallback that did it in its stead, did in a run."""

    step: str
    fallback: str | None
    run: int


_PUTS_BACK = ("delete_", "update_")
_REFERENCE = re.compile(r"\$\{steps\.(\w+)\.output((?:\.\w+)*)\}")


class Deed(NamedTuple):
    """What was done, for its undoing: in which run, at which version, its output, and the outputs that its params had.
    `certain`: it completed."""

    step: str
    fallback: str | None
    run: int
    since: int
    certain: bool
    output: Any
    inputs: dict[str, Any]

    @property
    def done(self) -> Done:
        return Done(self.step, self.fallback, self.run)

    @property
    def key(self) -> str:
        """What its undoing is called, over all attempts and runs."""
        return str(self.run) if self.fallback is None else f"{self.run}/fallback"


class Undoing(NamedTuple):
    """What an attempt is to undo, and with which params; None: they cannot be told."""

    deed: Deed
    params: dict[str, Any] | None


def resolved(params: dict[str, Any], outputs: dict[str, Any]) -> dict[str, Any] | None:
    """Params whose values may be references to outputs; None if one points to what is not there."""
    found: dict[str, Any] = {}
    for name, value in params.items():
        if reference := _REFERENCE.fullmatch(value) if isinstance(value, str) else None:
            value = outputs.get(reference[1])
            for field in reference[2].split(".")[1:]:
                if not isinstance(value, dict) or field not in value:
                    return None
                value = value[field]
        found[name] = value
    return found


class Life:
    """A step from its first attempt to what became of it; a new run begins a new one, unless it is kept."""

    def __init__(self) -> None:
        self.attempt = 0
        self.open: str | None = None
        self.opened = 0
        """The commit that scheduled the attempt, or freed it from a pause."""
        self.began = False
        self.held = self.overdue = False
        """Nobody has the attempt, and nobody gets it; it waited too long for a worker."""
        self.retry = 0
        """The version of the retry that is waited for."""
        self.queue = 0
        """The version of the timer that ends the attempt's waiting."""
        self.settled: str | None = None
        self.output: Any = None
        self.inputs: dict[str, Any] = {}
        """The outputs that the params of the last attempt were made of."""
        self.deed: Deed | None = None
        """What completed it."""
        self.cached = False
        """No handler ran: its output is another execution's."""
        self.unwanted = False
        """It was skipped because a condition said no."""
        self.done = False
        self.undone = False
        self.tried = False
        self.fallback: str | None = None
        self.recoveries = 0
        self.before_retries = False
        """The strategy that is asked comes before the retries."""
        self.undoing = False


class Known:
    """See the module. `problems`: what is wrong with it."""

    def __init__(self, entity: str) -> None:
        self.entity = entity
        self.problems: list[str] = []
        self.n = self.version = 0
        self.run = 1
        self.created: Event = {}
        self.plan: dict[str, Any] = {}
        self.steps: dict[str, dict[str, Any]] = {}
        self.lives: dict[str, Life] = {}
        self.past: dict[str, list[Life]] = {}
        self.deeds: dict[Done, Deed] = {}
        """What was done and not undone, in order of completion."""
        self.failed: list[str] = []
        self.started = self.paused = self.failing = self.stopping = False
        self.cancelled = ""
        self.ended: str | None = None
        self.partial = False
        self.undoing: list[Done] | None = None
        self.undone = 0
        self.not_undone: list[Done] = []
        self.skipped: list[Done] = []
        self.checkpoints: dict[str, tuple[dict[str, Life], dict[str, Any]]] = {}
        self.checkpoint: str | None = None
        """The last one in this line of runs."""
        self.images: dict[str, Any] = {}
        self.vars: dict[str, Any] = {}
        self.deadline = self.grace = self.checkpoint_timer = 0
        self.automatic_off = False
        self.next: tuple[str, str] | None = None
        self.after_advice = False
        """A strategy did not help, and another one is asked."""
        self.recoveries_most = 0
        self.forks: dict[str, list[dict[str, Any]]] = {}
        """The outputs that each fork was to take along."""
        self.handed: dict[tuple[str, int, int], str] = {}
        """What each attempt was scheduled for."""
        self.undoings: dict[tuple[str, int, int], Undoing] = {}
        """What each attempt to undo something was to undo."""
        self.abandoned: list[tuple[str, int, int]] = []
        """Attempts that were given up while somebody might have them, whoever does them."""
        self.untouched: list[tuple[str, int, int]] = []
        """Attempts that were closed because no worker ever had them."""
        self.all_vars: list[dict[str, Any]] = [{}]
        self.all_images: dict[str, list[Any]] = {}
        self.situations: list[tuple[int, str]] = [(0, "absent")]
        """After each event: its commit, and the situation."""
        self.causes: list[tuple[int, str, str, bool]] = []
        """Commit, id and time of all commands that were applied, and whether the commit set the course."""

    # What follows from it ----------------------------------------------------------------------------------------------

    @property
    def situation(self) -> str:
        """The row of the table of commands."""
        if not self.n:
            return "absent"
        if self.ended is not None:
            return "partial" if self.partial and self.ended == "failed" else self.ended
        if self.cancelled:
            return "cancelling"
        if self.undoing is not None:
            return "rolling_back_paused" if self.paused else "rolling_back"
        if self.paused:
            return "paused"
        if self.failing:
            return "failing"
        if not self.started:
            return "scheduled"
        return "recovering" if any(life.open == "recovery" for life in self.lives.values()) else "running"

    @property
    def open_attempts(self) -> list[tuple[str, int, int]]:
        return [(step, self.run, life.attempt) for step, life in self.lives.items() if life.open]

    @property
    def timers(self) -> set[int]:
        """The timers that must stand, if it is not paused."""
        if self.ended is not None or not self.n:
            return set()
        waited = {life.retry for life in self.lives.values() if life.retry} if not self.cancelled else set()
        waited |= {life.queue for life in self.lives.values()} if not self.stopping else set()
        start = {1} if not self.started and "start_at" in self.created and not self.stopping else set()
        before_the_end = set() if self.stopping else {self.deadline}
        if not (self.stopping or self.failing or self.undoing is not None):
            before_the_end.add(self.checkpoint_timer)
        return (waited | start | before_the_end | {self.grace}) - {0}

    def undo_of(self, done: Done) -> str | None:
        """The task that undoes it; None if nothing does."""
        step, fallback, _ = done
        tasks, own = self.created.get("tasks", {}), self.steps[step]
        said = tasks.get(fallback or own["task"], {})
        found: str | None = (None if fallback else own.get("compensate")) or said.get("compensate") or said.get("inverse")
        return found

    def _puts_back(self, done: Done) -> bool:
        """Whether it is undone by its inverse's name, from what was before."""
        step, fallback, _ = done
        task = fallback or self.steps[step]["task"]
        explicit = (not fallback and "compensate" in self.steps[step]) or "compensate" in self.created["tasks"].get(task, {})
        return not explicit and task.startswith(_PUTS_BACK)

    def _lacks_image(self, done: Done) -> bool:
        """Whether it would be put back by its inverse's name, and nobody knows what was."""
        return self.undo_of(done) is not None and self._puts_back(done) and done.step not in self.images

    def can_undo(self) -> bool:
        return any(self.undo_of(done) is not None and not self._lacks_image(done) for done in self.deeds)

    def undoing_of(self, done: Done) -> Undoing:
        """What it is undone with: the params that it had, its output over them, and over that what was before."""
        deed, image = self.deeds[done], self.images.get(done.step)
        params = resolved(self.steps[done.step].get("params", {}), deed.inputs)
        if params is not None:
            params = params | (deed.output if isinstance(deed.output, dict) else {})
            params |= image if isinstance(image, dict) and self._puts_back(done) else {}
        return Undoing(deed, params)

    def depends(self, step: str, other: str) -> bool:
        """Whether a step depends on the other, directly or through further ones."""
        needs = self.steps[step].get("depends_on", ())
        return other in needs or any(self.depends(need, other) for need in needs)

    def next_of(self, left: list[Done]) -> Done:
        """What is undone next: the last, and from the second run on the last of what nothing depends on that is left as well."""
        return next(
            done for done in reversed(left) if self.run == 1 or not any(self.depends(other.step, done.step) for other in left)
        )

    def completed(self) -> dict[str, Any]:
        """The outputs of what is completed and was not undone."""
        return {step: life.output for step, life in self.lives.items() if life.settled == "completed" and not life.undone}

    def queue_timeout(self, task: str, step: str | None = None) -> int:
        """How long an attempt may wait for a worker: of a step's task by all levels, of a compensation by its own."""
        own = [self.created.get("tasks", {}).get(task, {}), self.created.get("namespace", {})]
        if step is not None:
            own = [self.created.get("config", {}), self.steps[step], self.plan.get("config", {}), *own]
        return next((level["queue_timeout_ms"] for level in own if level.get("queue_timeout_ms") is not None), 0)

    def config(self, name: str) -> Any:
        """What the levels say, the last first."""
        for level in (self.created.get("config", {}), self.plan.get("config", {}), self.created.get("namespace", {})):
            if level.get(name) is not None:
                return level[name]
        return None

    # What is wrong -----------------------------------------------------------------------------------------------------

    def _wrong(self, problem: str) -> None:
        self.problems.append(f"{self.entity}: {problem} (version {self.version})")

    def _must(self, holds: object, problem: str) -> None:
        if not holds:
            self._wrong(problem)
