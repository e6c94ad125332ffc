"""What must hold of a step's attempts: its own work, what is tried in its stead, what a strategy advises, and its undoing."""

from tests.simulation.known import Deed, Done, Event, Known, Life


class LawOfSteps(Known):
    """See the module. One method for each event, called as it."""

    # Tasks ---------------------------------------------------------------------------------------------------------------

    def _task_scheduled(self, event: Event) -> None:
        step, attempt = event["step"], event.get("attempt", 1)
        life = self.lives[step]
        self._hand_out(step, attempt, "fallback" if life.fallback else "task")
        self._must(not self.cancelled and not self.failing, f"{step} was scheduled while the execution ends")
        self._must(self.started and life.settled is None, f"{step} was scheduled before the start, or again")
        if not life.tried:
            needs = [other for other in self.steps[step].get("depends_on", ()) if not self.lives[other].done]
            self._must(not needs, f"{step} was scheduled before {needs}")
            self._must(not self.paused, f"{step} was scheduled during a pause")
            self._must(self._is_wanted(step), f"{step} was scheduled against its condition")
            busy = [one for one, other in self.lives.items() if one != step and other.tried and other.settled is None]
            self._must(len(busy) < (self.config("parallel_execution_limit") or 5), f"{step} was scheduled beside {busy}")
            serial = [one for one in busy if not self._parallel(one)]
            self._must(self._parallel(step) or not serial, f"{step} was scheduled beside {serial}")
        elif life.retry:
            self._must(not self.paused, f"the retry of {step} was scheduled during a pause")
        life.retry, life.tried = 0, True
        life.inputs = {other: self.lives[other].output for other in self.steps if self.lives[other].settled == "completed"}
        self._wait_in_queue(life, self.queue_timeout(life.fallback or self.steps[step]["task"], step))

    def _is_wanted(self, step: str) -> bool:
        """What its `when` says, which in these plans is `${steps.NAME.output.KEY}`, or not that."""
        when = self.steps[step].get("when")
        if when is None:
            return True
        _, name, _, key = when.removeprefix("not ").removeprefix("${").removesuffix("}").split(".")
        output = self.lives[name].output
        there = isinstance(output, dict) and output.get(key) not in (None, False)
        return there != when.startswith("not ")

    def _wait_in_queue(self, life: Life, wait_ms: int) -> None:
        life.queue = self.version if wait_ms else 0

    def _parallel(self, step: str) -> bool:
        return bool(self.plan.get("parallel") or self.steps[step].get("parallel"))

    def _hand_out(self, step: str, attempt: int, purpose: str) -> None:
        life = self.lives[step]
        self._must(life.open is None and attempt == life.attempt + 1, f"attempt {attempt} of {step} is out of turn")
        life.attempt, life.open, life.opened, life.began = attempt, purpose, self.n, False
        life.held, life.overdue = self.paused, False
        self.handed[step, self.run, attempt] = purpose

    def _hold_what_is_new(self) -> None:
        """What this very commit has scheduled, or freed, was not handed out, and is not."""
        for life in self.lives.values():
            if life.open and life.opened == self.n and not life.began:
                life.held = True

    def _of_open(self, event: Event, *purposes: str) -> Life:
        life = self.lives[event["step"]]
        what = f"{event['type']} of {event['step']} {event.get('attempt', 1)}"
        self._must(life.open in purposes and event.get("attempt", 1) == life.attempt, f"{what}: not open for that")
        return life

    def _close(self, life: Life) -> None:
        life.open, life.queue = None, 0

    def _task_started(self, event: Event, *purposes: str) -> None:
        life = self._of_open(event, *(purposes or ("task", "fallback")))
        self._must(not life.began, "it began twice")
        life.began, life.held, life.overdue, life.queue = True, False, False, 0

    def _task_cache_hit(self, event: Event) -> None:
        life = self._of_open(event, "task", "fallback")
        self._must(not life.cached, "it was found twice")
        if life.began:  # by a worker that was lost
            self._perhaps_done(event["step"])
        life.began, life.held, life.overdue, life.queue, life.cached = True, False, False, 0, True

    def _task_completed(self, event: Event) -> None:
        life = self._of_open(event, "task", "fallback")
        self._close(life)
        step, life.settled, life.done, life.output = event["step"], "completed", True, event.get("output")
        if not life.cached:
            life.deed = Deed(step, life.fallback, self.run, self.version, True, life.output, life.inputs)
            self._stands(life.deed)
        self._set_vars(event)

    def _stands(self, deed: Deed) -> None:
        """What was done last counts; but what may have been done in another run has to be undone as well."""
        for done, other in list(self.deeds.items()):
            same = (done.step, done.fallback) == (deed.step, deed.fallback)
            if same and (other.certain or done.run == deed.run):
                del self.deeds[done]
        self.deeds[deed.done] = deed

    def _task_failed(self, event: Event) -> None:
        life, step = self._of_open(event, "task", "fallback"), event["step"]
        self._close(life)
        self._was_overdue(event)
        unknown = event["type"] == "task_timed_out" and event["error"]["code"] != "queue_timeout"
        if unknown or event["error"]["code"] == "WORKER_LOST":
            self._perhaps_done(step)
        self._set_vars(event)
        if event.get("will_retry"):
            self.next = ("task_retry_scheduled", step)
        elif "instead" in event:
            self.next = ("recovery_initiated" if event["instead"] == "recovery" else "task_fallback_started", step)
        else:
            self._give_up(step)

    _task_timed_out = _task_rejected = _task_failed

    def _was_overdue(self, event: Event) -> None:
        if event["error"]["code"] == "queue_timeout":
            life = self.lives[event["step"]]
            self._must(life.overdue and not life.began, f"{event['step']} was not overdue, or had begun")

    def _perhaps_done(self, step: str) -> None:
        life = self.lives[step]
        deed = Deed(step, life.fallback, self.run, self.version, False, None, life.inputs)
        self.deeds.setdefault(deed.done, deed)

    def _give_up(self, step: str, *, abort: bool = False) -> None:
        self.lives[step].settled = "failed"
        self.failed.append(step)
        if abort or not self.config("continue_on_error"):
            self.failing = True

    def _set_vars(self, event: Event) -> None:
        if event.get("vars"):
            self.vars = self.vars | event["vars"]
        self.all_vars.append(self.vars)

    def _task_retry_scheduled(self, event: Event) -> None:
        life = self.lives[event["step"]]
        self._must(event.get("attempt", 1) == life.attempt + 1, f"not the next attempt of {event['step']}")
        life.retry = self.version

    def _task_overdue(self, event: Event) -> None:
        life = self._of_open(event, "task", "fallback", "recovery", "compensation")
        self._must(not life.began and not self.paused, f"{event['step']} had begun, or was held by a pause")
        self._must(life.queue and not life.overdue, f"{event['step']} may wait for ever, or was overdue before")
        life.queue, life.overdue = 0, True

    def _task_held(self, event: Event) -> None:
        life = self._of_open(event, "task", "fallback", "recovery", "compensation")
        self._must(self.paused and not self.stopping, f"{event['step']} was held, and there is no pause")
        self._must(not life.began and not life.held, f"{event['step']} was held, and had begun, or was held before")
        life.held = True

    def _task_skipped(self, event: Event) -> None:
        life = self.lives[event["step"]]
        self._must(life.settled is None and life.open is None, f"{event['step']} was skipped, and had begun")
        if event["reason"] == "dependency_failed":
            other = self.lives[event["because"]]
            self._must(other.settled in ("failed", "skipped") and not other.done, f"{event['because']} did not fail")
        elif event["reason"] == "cancelled":
            self._must(self.failing and not life.tried, "nothing failed")
        elif event["reason"] == "condition":
            ends = self.cancelled or self.failing
            unwanted = not ends and not self._is_wanted(event["step"])
            unwanted = self.lives[event["because"]].unwanted if "because" in event else unwanted
            self._must(unwanted, f"the condition of {event['step']} holds, or all ends")
            life.unwanted = True
        life.settled, life.done = "skipped", event["reason"] == "recovery"
        life.undone = False

    def _task_cancelled(self, event: Event) -> None:
        life, step = self.lives[event["step"]], event["step"]
        self._must(self.cancelled or self.failing, f"nobody cancelled {step}")
        self._must(life.settled is None and event.get("attempt", 1) == life.attempt, f"{step} is not to be cancelled")
        self._must(not life.open or self.stopping or life.held, f"{step} is open, and nobody stopped it")
        if life.open in ("task", "fallback") and (life.began or event.get("ended") == "abandoned"):
            self._must(not life.held, f"{step} was held, and began all the same")
            self._perhaps_done(step)
        if event.get("ended") == "abandoned":
            self.abandoned.append((step, self.run, life.attempt))
        if life.open and life.held:
            self.untouched.append((step, self.run, life.attempt))
        self._close(life)
        life.retry, life.settled = 0, "cancelled"

    def _task_fallback_started(self, event: Event) -> None:
        life = self.lives[event["step"]]
        self._must(life.fallback is None and event["task"] == self.steps[event["step"]]["fallback"], "that is no fallback")
        life.fallback = event["task"]
        self.next = ("task_scheduled", event["step"])

    def _before_image_recorded(self, event: Event) -> None:
        self._of_open(event, "task", "fallback")
        self._must(event["step"] not in self.images, f"{event['step']} has an image")
        self.images[event["step"]] = event.get("image")
        self.all_images.setdefault(event["step"], []).append(event.get("image"))

    # Recovery ------------------------------------------------------------------------------------------------------------

    def _recovery_initiated(self, event: Event) -> None:
        self._hand_out(event["step"], event.get("attempt", 1), "recovery")
        life = self.lives[event["step"]]
        asked_before = event.get("before_retries", False)
        self._must(not (self.after_advice and asked_before), "one strategy before the retries upon the other")
        self.after_advice = False
        life.recoveries, life.before_retries = life.recoveries + 1, asked_before
        self.recoveries_most = max(self.recoveries_most, life.recoveries)
        self._must(life.fallback is None, "what failed in its stead is not recovered from")
        self._must(not self.failing and not self.cancelled, "it is ending")
        self._wait_in_queue(life, 1)  # a question never waits for ever

    def _recovery_started(self, event: Event) -> None:
        self._task_started(event, "recovery")

    def _recovery_completed(self, event: Event) -> None:
        life, step = self._of_open(event, "recovery"), event["step"]
        self._close(life)
        self._set_vars(event)
        then, success = event["then"], event["success"]
        if event["action"] == "abort" or self.failing or self.cancelled:
            self._must(then == "fail", f"{then} after an abort, or at the end")
        elif not success:
            behind = {"retry", "recovery", "fallback", "fail"} if life.before_retries else {"fallback", "fail"}
            self._must(then in behind, f"{then} is not what comes behind that strategy")
            self._must(then != "fail" or life.fallback or "fallback" not in self.steps[step], "its fallback was not tried")
        else:
            self._must(then != "recovery", "it helped, and another strategy is asked")
        self.after_advice = then == "recovery"
        if then == "fail":
            self._give_up(step, abort=event["action"] == "abort")
        else:
            following = {
                "retry": ("task_scheduled" if success else "task_retry_scheduled", step),
                "recovery": ("recovery_initiated", step),
                "skip": ("task_skipped", step),
                "fallback": ("task_fallback_started", step),
                "restore": ("checkpoint_restored", ""),
            }
            self.next = following[then]

    # Rollback ------------------------------------------------------------------------------------------------------------

    def _rollback_started(self, event: Event) -> None:
        if event.get("by", "failure") == "command":
            self._must(self.ended is not None, "a rollback was wished before the end")
        else:
            self._must(self.ended is None and (self.failing or self.failed), "nothing failed")
            self._must(not self.open_attempts and not self.cancelled, "rolled back before its end")
        self._must(self.can_undo(), "nothing can be undone")
        self.undoing, self.undone, self.not_undone, self.skipped = list(self.deeds), 0, [], []
        self._next_in_turn()
        self.ended, self.cancelled, self.stopping, self.partial = None, "", False, False
        self.deadline = self.grace = 0
        for life in self.lives.values():
            life.undoing = False

    def _next_in_turn(self) -> None:
        """Put what is undone next at the end of what is left."""
        if self.undoing:
            done = self.next_of(self.undoing)
            self.undoing.remove(done)
            self.undoing.append(done)

    def _next_undo(self, event: Event) -> Done:
        """Whose turn it is."""
        step: str = event["step"]
        done = self.undoing[-1] if self.undoing else Done(step, None, self.run)
        self._must(self.undoing and done.step == step, f"{event['type']} of {step}: its turn is not now")
        return done

    def _compensation_scheduled(self, event: Event) -> None:
        done, step = self._next_undo(event), event["step"]
        self._must(done in self.deeds, f"{done} is undone twice, or did nothing")
        self._must(not self.paused and not self.cancelled, f"the undoing of {step} during a pause, or after a cancel")
        self._must(event["task"] == self.undo_of(done) and not self._lacks_image(done), f"{event['task']} does not undo {done}")
        life = self.lives[step]
        self._must(not life.undoing or life.retry, f"the undoing of {step} is begun twice")
        self._hand_out(step, event.get("attempt", 1), "compensation")
        if done in self.deeds:
            self.undoings[step, self.run, life.attempt] = self.undoing_of(done)
        self._wait_in_queue(life, self.queue_timeout(event["task"]))
        life.undoing, life.retry = True, 0

    def _compensation_started(self, event: Event) -> None:
        self._task_started(event, "compensation")

    def _compensation_completed(self, event: Event) -> None:
        done, life, step = self._next_undo(event), self._of_open(event, "compensation"), event["step"]
        self._close(life)
        self._set_vars(event)
        self._must(done in self.deeds, f"{done} was undone twice")
        deed = self.deeds.pop(done, None)
        for one in (life, *self.past.get(step, ())):
            one.undone = one.undone or (deed is not None and one.deed == deed)
        if step not in {other.step for other in self.deeds}:
            self.images.pop(step, None)
        self.undone += 1
        self._undone_one(life)

    def _compensation_failed(self, event: Event) -> None:
        done, life = self._next_undo(event), self._of_open(event, "compensation")
        if event["error"]["code"] == "cancelled":
            self._must(self.cancelled, "nobody cancelled it")
            self.abandoned.append((event["step"], self.run, life.attempt))
        self._close(life)
        self._was_overdue(event)
        if event.get("will_retry"):
            self.next = ("compensation_retry_scheduled", event["step"])
        else:
            self.not_undone.append(done)
            self._undone_one(life)

    def _compensation_retry_scheduled(self, event: Event) -> None:
        self._task_retry_scheduled(event)

    def _compensation_skipped(self, event: Event) -> None:
        done = self._next_undo(event)
        reason = "no_compensation" if self.undo_of(done) is None else "no_before_image"
        self._must(event["reason"] == reason, f"{done} is not undone for {event['reason']}")
        self._must(reason == "no_compensation" or self._lacks_image(done), f"{done} could be undone")
        self.skipped.append(done)
        self._undone_one(self.lives[event["step"]])

    def _undone_one(self, life: Life) -> None:
        life.undoing = False
        if self.undoing:
            self.undoing.pop()
            self._next_in_turn()
