"""What is known of an execution from the JSON of its history; the laws that its events must keep stand in `law`."""

from typing import Any

Event = dict[str, Any]
Done = tuple[str, str | None]
"""A step, and the fallback that did it, if it was not its own task."""

_INVERSES = {"create_": "delete_", "delete_": "create_", "update_": "update_"}
_PUTS_BACK = ("delete_", "update_")


class Life:
    """A step from its first attempt to what became of it; a new run begins a new one, unless it is kept."""

    def __init__(self) -> None:
        self.attempt = 0
        self.open: str | None = None
        self.began = False
        self.retry = 0
        """The version of the retry that is waited for."""
        self.settled: str | None = None
        self.done = False
        self.undone = False
        self.tried = False
        self.fallback: str | None = None
        self.recoveries = 0
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
        self.order: list[Done] = []
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
        self.images: dict[str, Any] = {}
        self.vars: dict[str, Any] = {}
        self.deadline = self.grace = self.checkpoint_timer = 0
        self.automatic_off = False
        self.next: tuple[str, str] | None = None
        self.recoveries_most = 0
        self.forks: list[str] = []
        self.handed: dict[tuple[str, int, int], str] = {}
        """What each attempt was scheduled for."""
        self.all_vars: list[dict[str, Any]] = [{}]
        self.all_images: dict[str, list[Any]] = {}
        self.situations: list[tuple[int, str]] = [(0, "absent")]
        """After each event: its commit, and the situation."""
        self.causes: list[tuple[int, str, str]] = []
        """Commit, id and time of all commands that were applied."""

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
        if not self.started:
            return "scheduled"
        if self.failing:
            return "failing"
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
        start = {1} if not self.started and "start_at" in self.created and not self.cancelled else set()
        before_the_end = set() if self.stopping else {self.deadline}
        if not (self.stopping or self.failing or self.undoing is not None):
            before_the_end.add(self.checkpoint_timer)
        return (waited | start | before_the_end | {self.grace}) - {0}

    def undo_of(self, done: Done) -> str | None:
        """The task that undoes it; None if nothing does."""
        step, fallback = done
        tasks, own = self.created.get("tasks", {}), self.steps[step]
        announced: str | None = tasks.get(fallback or own["task"], {}).get("compensate")
        return announced if fallback else own.get("compensate") or announced

    def _lacks_image(self, done: Done) -> bool:
        """Whether it would be put back by its inverse's name, and nobody knows what was."""
        task, undo = done[1] or self.steps[done[0]]["task"], self.undo_of(done)
        puts_back = any(task.startswith(verb) and undo == _INVERSES[verb] + task[len(verb) :] for verb in _PUTS_BACK)
        return puts_back and done[0] not in self.images

    def can_undo(self) -> bool:
        return any(self.undo_of(done) is not None and not self._lacks_image(done) for done in self.order)

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
