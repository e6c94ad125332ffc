"""A plan, checked and compiled: who waits for whom, what is constant, what it is called. The gate to every execution.

Invariant: whatever passed `compile_plan` can be carried out. Steps are numbers here, their positions in the plan; every
tuple of numbers is in plan order. Work is proportional to steps plus dependencies, and nothing recurses.
"""

import msgspec

from esexec.domain import ids, limits
from esexec.domain.canonical import canonical_bytes, plan_id
from esexec.domain.errors import PlanInvalid, ValidationError
from esexec.domain.explain import as_plan_invalid, did_you_mean, invalid_value, shown
from esexec.domain.flow_rules import check_needs, check_settings
from esexec.domain.plan import Plan, Step
from esexec.domain.references import Condition, Reference, Template, compile_condition, compile_params
from esexec.domain.settings import EMPTY_CONFIG, TaskSettings
from esexec.domain.shape import check_shape

_DECODER = msgspec.json.Decoder(Plan)
_CYCLE_SHOWN = 10


class Graph(msgspec.Struct, frozen=True, eq=False):
    """A plan that can be carried out. `raw` is `plan` as it is stored; `parallel` includes the plan's own switch.

    `plain`: steps without settings of their own, in a plan without any; `bounded_waits`: whether any says a queue timeout;
    `gated`: whether any step, or the plan for its steps, says a rate limit, a concurrency key or resources.
    `dependencies` hold stated ones and those that references imply, without duplicates. `templates`: None where the params are
    constant; `uses`: the steps whose outputs they refer to. `conditions`: of the steps that have a `when`. `sinks`: steps that
    nothing waits for.
    """

    plan: Plan
    plan_id: str
    raw: bytes
    steps: tuple[Step, ...]
    index: dict[str, int]
    dependencies: tuple[tuple[int, ...], ...]
    dependents: tuple[tuple[int, ...], ...]
    parallel: tuple[bool, ...]
    plain: tuple[bool, ...]
    bounded_waits: bool
    gated: bool
    uses: tuple[tuple[int, ...], ...]
    templates: tuple[Template | None, ...]
    conditions: dict[int, Condition]
    sinks: tuple[int, ...]


def compile_plan(plan: Plan) -> Graph:
    """Check `plan` and compile it. Raises PlanInvalid, whose `code` names the rule and whose context has the `path`."""
    _check_extent(plan)
    identity = plan_id(plan)
    plan, raw = _normal(plan)
    index = _index(plan)
    templates = tuple(_template(step, position) for position, step in enumerate(plan.steps))
    conditions = {position: _condition(step, position) for position, step in enumerate(plan.steps) if step.when is not None}
    dependencies = tuple(
        _dependencies(step, position, _referred(templates[position], conditions.get(position)), index)
        for position, step in enumerate(plan.steps)
    )
    dependents = _dependents(dependencies)
    _check_acyclic(plan.steps, dependencies, dependents)
    gated = plan.config.rate_limit is not None or any(map(_is_gated, plan.steps))
    if gated or plan.config.concurrency is not None:
        _check_flow(plan)
    return Graph(
        plan=plan,
        plan_id=identity,
        raw=raw,
        steps=plan.steps,
        index=index,
        dependencies=dependencies,
        dependents=dependents,
        parallel=tuple(plan.parallel or step.parallel for step in plan.steps),
        uses=tuple(_uses(template, index) for template in templates),
        bounded_waits=bool(plan.config.queue_timeout_ms) or any(step.queue_timeout_ms for step in plan.steps),
        gated=gated,
        plain=tuple(plan.config is EMPTY_CONFIG and _says_nothing(step) for step in plan.steps),
        templates=templates,
        conditions=conditions,
        sinks=tuple(position for position, waiting in enumerate(dependents) if not waiting),
    )


# Limits --------------------------------------------------------------------------------------------------------------


def _check_extent(plan: Plan) -> None:
    """What must hold before anything walks through the plan as a whole."""
    if not plan.steps:
        raise PlanInvalid("the plan has no steps", code="empty_plan", hint="give it at least one step", path="steps")
    if len(plan.steps) > limits.steps_per_plan:
        raise PlanInvalid(
            f"the plan has {len(plan.steps)} steps",
            code="too_many_steps",
            hint=f"at most {limits.steps_per_plan} (limits.steps_per_plan)",
            path="steps",
        )
    try:
        check_shape(plan.metadata, path="metadata", size_max=limits.large_plan_bytes)
        for position, step in enumerate(plan.steps):
            if step.params:
                check_shape(step.params, path=f"steps[{position}].params", size_max=limits.large_plan_bytes)
            if step.metadata:
                check_shape(step.metadata, path=f"steps[{position}].metadata", size_max=limits.large_plan_bytes)
            for number, requirement in enumerate(step.resources):
                check_shape(requirement.constraints, path=f"steps[{position}].resources[{number}].constraints")
    except ValidationError as error:
        raise as_plan_invalid(error) from None


def _normal(plan: Plan) -> tuple[Plan, bytes]:
    """The plan as it will be read back from the log, every field checked against its type; and its stored bytes."""
    if plan.config == EMPTY_CONFIG:
        plan = msgspec.structs.replace(
            plan, config=EMPTY_CONFIG
        )  # an empty config is left out of the bytes only if it is this one
    raw = canonical_bytes(plan)
    if len(raw) > limits.large_plan_bytes:
        raise PlanInvalid(
            f"the plan is {len(raw)} bytes long",
            code="plan_too_large",
            hint=f"at most {limits.large_plan_bytes} (limits.large_plan_bytes); hand large data over as input, or by a link",
        )
    try:
        plan = _DECODER.decode(raw)
    except msgspec.ValidationError as error:
        raise as_plan_invalid(invalid_value(error)) from None
    _check_text(plan.name, "name", limits.name_chars, "bad_name", least=1)
    _check_text(plan.description, "description", limits.text_chars, "text_too_long")
    if plan.config.queue is not None:
        _check_queue(plan.config.queue, "config.queue")
    return plan, raw


def _check_text(text: str, path: str, chars_max: int, code: str, *, least: int = 0) -> None:
    if not least <= len(text) <= chars_max:
        hint = f"{least} to {chars_max} characters"
        raise PlanInvalid(f"{path} has {len(text)} characters", code=code, hint=hint, path=path)


def _check_queue(queue: str, path: str) -> None:
    # The type's pattern ends in `$`, which lets one newline pass.
    if not ids.is_user_id(queue):
        hint = f"1 to {limits.id_chars} of A-Z a-z 0-9 _ -, no _ in front"
        raise PlanInvalid(f"{path}: `{shown(queue)}` cannot name a queue", code="bad_queue", hint=hint, path=path)


def _check_task(name: str, path: str) -> None:
    if not ids.is_task_name(name):
        hint = f"1 to {limits.task_name_chars} of A-Z a-z 0-9 _ and, behind the first, . : / -"
        raise PlanInvalid(f"{path}: `{shown(name)}` cannot name a task", code="bad_task_name", hint=hint, path=path)


# Steps ---------------------------------------------------------------------------------------------------------------


def _uses(template: Template | None, index: dict[str, int]) -> tuple[int, ...]:
    if template is None:
        return ()
    return tuple(dict.fromkeys(index[reference.step] for reference in template.references if reference.step is not None))


def _is_gated(step: Step) -> bool:
    return step.rate_limit is not None or step.concurrency is not None or bool(step.resources)


def _check_flow(plan: Plan) -> None:
    try:
        check_settings(plan.config, "config")
        for position, step in enumerate(plan.steps):
            if _is_gated(step):
                path = f"steps[{position}]"
                check_settings(step, path)
                check_needs(step.concurrency, step.resources, path)
    except ValidationError as error:
        raise as_plan_invalid(error) from None


def _says_nothing(step: Step) -> bool:
    return all(getattr(step, name) is None for name in TaskSettings.__struct_fields__)


def _index(plan: Plan) -> dict[str, int]:
    index: dict[str, int] = {}
    for position, step in enumerate(plan.steps):
        path = f"steps[{position}]"
        if not ids.is_user_id(step.id):
            hint = f"1 to {limits.id_chars} of A-Z a-z 0-9 _ -, no _ in front; for example `{ids.token_from(step.id)}`"
            raise PlanInvalid(
                f"{path}.id: `{shown(step.id)}` cannot name a step", code="bad_step_id", hint=hint, path=f"{path}.id"
            )
        _check_task(step.task, f"{path}.task")
        if step.compensate is not None:
            _check_task(step.compensate, f"{path}.compensate")
        if step.fallback is not None:
            _check_task(step.fallback, f"{path}.fallback")
        if (first := index.setdefault(step.id, position)) != position:
            message = f"{path}.id: `{step.id}` is the id of steps[{first}] already"
            raise PlanInvalid(message, code="duplicate_step", hint="give each step an id of its own", path=f"{path}.id")
        _check_text(step.description, f"{path}.description", limits.text_chars, "text_too_long")
        if step.queue is not None:
            _check_queue(step.queue, f"{path}.queue")
    return index


def _template(step: Step, position: int) -> Template | None:
    path = f"steps[{position}].params"
    try:
        template = compile_params(step.params)
    except ValidationError as error:
        raise as_plan_invalid(error, path=path) from None
    if isinstance(step.params, str) and (template is None or not template.is_reference):
        raise PlanInvalid(
            f"{path}: `{shown(step.params)}` is neither an object nor one reference",
            code="bad_params",
            hint="write an object, or one reference such as ${input}",
            path=path,
        )
    return template


def _condition(step: Step, position: int) -> Condition:
    path = f"steps[{position}].when"
    try:
        return compile_condition(step.when or "")
    except ValidationError as error:
        raise as_plan_invalid(error, path=path) from None


def _referred(template: Template | None, condition: Condition | None) -> tuple[Reference, ...]:
    """All that a step refers to."""
    of_params = () if template is None else template.references
    return of_params if condition is None else (*of_params, condition.reference)


def _dependencies(step: Step, position: int, referred: tuple[Reference, ...], index: dict[str, int]) -> tuple[int, ...]:
    """The positions that `step` waits for, in plan order: those it states and those its references imply."""
    if not step.depends_on and not referred:
        return ()
    waits_for: set[int] = set()
    for number, name in enumerate(step.depends_on):
        path = f"steps[{position}].depends_on[{number}]"
        other = index.get(name)
        if other is None:
            message = f"{path}: there is no step `{shown(name)}`"
            raise PlanInvalid(message, code="unknown_dependency", hint=did_you_mean(name, index), path=path)
        if other == position:
            raise PlanInvalid(f"{path}: `{name}` depends on itself", code="self_dependency", hint="remove it", path=path)
        if other in waits_for:
            raise PlanInvalid(f"{path}: `{name}` is named twice", code="duplicate_dependency", hint="name it once", path=path)
        waits_for.add(other)
    for reference in referred:
        if reference.step is None:
            continue
        path = f"steps[{position}].params"
        other = index.get(reference.step)
        if other is None:
            message = f"{path}: {shown(str(reference))} refers to a step that does not exist"
            raise PlanInvalid(message, code="unknown_reference", hint=did_you_mean(reference.step, index), path=path)
        if other == position:
            message = f"{path}: {shown(str(reference))} refers to the step's own output"
            raise PlanInvalid(message, code="self_reference", hint="refer to an earlier step", path=path)
        waits_for.add(other)
    return tuple(sorted(waits_for))


# The graph as a whole --------------------------------------------------------------------------------------------------


def _dependents(dependencies: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    dependents: list[list[int]] = [[] for _ in dependencies]
    for position, waits_for in enumerate(dependencies):
        for other in waits_for:
            dependents[other].append(position)
    return tuple(map(tuple, dependents))


def _check_acyclic(
    steps: tuple[Step, ...], dependencies: tuple[tuple[int, ...], ...], dependents: tuple[tuple[int, ...], ...]
) -> None:
    """Kahn: take away what waits for nothing, until nothing is left; what cannot be taken away is, or waits for, a cycle."""
    open_count = [len(waits_for) for waits_for in dependencies]
    free = [position for position, count in enumerate(open_count) if not count]
    taken = 0
    while free:
        taken += 1
        for position in dependents[free.pop()]:
            open_count[position] -= 1
            if not open_count[position]:
                free.append(position)
    if taken == len(steps):
        return
    cycle = _cycle(dependencies, open_count)
    names = [steps[position].id for position in cycle]
    told = names if len(names) <= _CYCLE_SHOWN else [*names[:_CYCLE_SHOWN], "…"]
    raise PlanInvalid(
        "steps wait for each other: " + " → ".join([*told, names[0]]),
        code="cycle",
        hint=f"`{names[0]}` depends on `{names[1]}`, and so on round; remove one of these dependencies",
        cycle=names,
        path=f"steps[{cycle[0]}]",
    )


def _cycle(dependencies: tuple[tuple[int, ...], ...], open_count: list[int]) -> list[int]:
    """A cycle among what could not be taken away: from there, some open dependency always leads on, so a walk must return."""
    position = next(position for position, count in enumerate(open_count) if count)
    walked: dict[int, int] = {}
    while position not in walked:
        walked[position] = len(walked)
        position = next(other for other in dependencies[position] if open_count[other])
    cycle = list(walked)[walked[position] :]
    first = cycle.index(min(cycle))
    return cycle[first:] + cycle[:first]
