"""What people write → a plan in its canonical form. Aliases, durations with units, presets, default ids, positions of steps.

Reading is lenient in names and strict in meaning: whatever could be meant in two ways is refused. Only the form is judged
here; whether the plan can be carried out is `graph`'s to say.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from esexec.domain import aliases, ids, limits
from esexec.domain.aliases import Written, by_field, wrong_type
from esexec.domain.errors import PlanInvalid, ValidationError
from esexec.domain.explain import as_plan_invalid, joined, shown
from esexec.domain.flow_keys import Counted
from esexec.domain.flow_reading import read_key, read_rate_limit, read_requirements
from esexec.domain.graph import Graph, compile_plan
from esexec.domain.plan import Plan, Step
from esexec.domain.settings import EMPTY_CONFIG, ExecutionConfig, QueueSettings, TaskSettings
from esexec.domain.shape import check_shape
from esexec.domain.values import convert, json_value, with_durations

T = TypeVar("T", bound=TaskSettings | Plan)
Config = Mapping[str, Any] | ExecutionConfig
"""Settings as people give them: by their names, or as the object."""

_PLAN = msgspec.json.Decoder(Plan)
_JSON = msgspec.json.Decoder()
_LEVELS_ABOVE_PARAMS = 3
"""plan → steps → step → params."""
_OF_CONFIG = frozenset(aliases.CONFIG.values())


def decode_plan(raw: bytes | msgspec.Raw) -> Graph:
    """The checked graph of a plan's JSON, canonical or as people write it.

    Raises PlanInvalid and nothing else, for any bytes: `too_large`, `not_utf8`, `bad_json`, and what `read_plan` and
    `compile_plan` raise.
    """
    data = bytes(raw)
    if len(data) > limits.large_plan_bytes:
        hint = f"at most {limits.large_plan_bytes} bytes (limits.large_plan_bytes)"
        raise PlanInvalid(f"the plan is {len(data)} bytes long", code="too_large", hint=hint)
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise PlanInvalid(f"the plan is not UTF-8: byte {error.start}", code="not_utf8", hint="send UTF-8") from None
    try:
        return compile_plan(_PLAN.decode(data))
    except msgspec.ValidationError:
        pass  # not canonical: perhaps with aliases
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise _bad_json(error) from None
    try:
        document = _JSON.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise _bad_json(error) from None
    return compile_plan(read_plan(document))


def read_plan(document: Mapping[str, Any], *, in_seconds: bool = False) -> Plan:
    """The plan that `document` describes; not yet checked as a graph. `in_seconds`: see `read_config`.

    Raises PlanInvalid: `unknown_key`, `said_twice`, `missing`, `invalid_value` (its `path` like `steps[2].priority`),
    `invalid_duration`, `ambiguous_duration`, `bad_queue`, `unknown_preset`, `unknown_dependency` (a position that does not
    exist), `not_json`, `too_deep`, `too_large`, and what `flow_reading` raises.
    """
    try:
        depth_max = limits.nesting_depth + _LEVELS_ABOVE_PARAMS
        check_shape(document, path="plan", depth_max=depth_max, size_max=limits.large_plan_bytes)
        return _plan(document, in_seconds)
    except ValidationError as error:
        raise as_plan_invalid(error) from None


def read_config(document: Config, *, path: str = "", in_seconds: bool = False) -> ExecutionConfig:
    """The settings of an execution or a plan. Raises ValidationError as `read_plan` does.

    A `preset` is replaced by what it stands for; what is said beside it wins.
    `in_seconds`: bare numbers without a unit in their key are surely seconds (Python's API), however large.
    """
    check_shape(document, path=path or "config")
    return _config(by_field(_by_name(document), aliases.CONFIG, path), path, in_seconds)


def read_change(document: Mapping[str, Any], *, in_seconds: bool = False) -> dict[str, Any]:
    """A change of a namespace's settings, as the command `configure` takes it; see `read_config`. What is null is taken back.

    `queues`: by queue, settings of the attempts on it; null in the place of these takes all of them back.
    Raises ValidationError as `read_config` does; `bad_queue`.
    """
    check_shape(document, path="config")
    fields = by_field(document, aliases.NAMESPACE, "", nulls=True)
    preset, queues = fields.pop("preset", None), fields.pop("queues", None)
    if preset is not None and preset.value is not None:
        fields = {**_preset(preset, ""), **fields}
    change = _change(ExecutionConfig, fields, "", in_seconds)
    if queues is not None:
        change["queues"] = None if queues.value is None else _queues(queues.value, in_seconds)
    return change


def _queues(document: object, in_seconds: bool) -> dict[str, Any]:
    if not isinstance(document, Mapping):
        raise wrong_type("queues", "an object", document)
    changes: dict[str, Any] = {}
    for queue, said in document.items():
        path = joined("queues", shown(queue))
        if not isinstance(queue, str) or not ids.is_user_id(queue):
            hint = f"1 to {limits.id_chars} of A-Z a-z 0-9 _ -, no _ in front"
            raise ValidationError(f"{path}: cannot name a queue", code="bad_queue", hint=hint, path=path)
        fields = by_field(said, aliases.QUEUE, path, nulls=True) if said is not None else {}
        changes[queue] = None if said is None else _change(QueueSettings, fields, path, in_seconds)
    return changes


def _change(kind: type[TaskSettings], fields: dict[str, Written], path: str, in_seconds: bool) -> dict[str, Any]:
    said = {field: written for field, written in fields.items() if written.value is not None}
    settings: dict[str, Any] = msgspec.to_builtins(_settings(kind, said, path, in_seconds))
    return settings | {field: None for field in fields if field not in said}


def read_settings(document: Mapping[str, Any], *, path: str = "", in_seconds: bool = False) -> TaskSettings:
    """The settings of a task; see `read_config`."""
    check_shape(document, path=path or "settings")
    return _settings(TaskSettings, by_field(document, aliases.SETTINGS, path), path, in_seconds)


# Plans ---------------------------------------------------------------------------------------------------------------


def _plan(document: object, in_seconds: bool) -> Plan:
    found = by_field(document, aliases.PLAN, "")
    for field in ("name", "steps"):
        if field not in found:
            raise ValidationError(f"the plan has no `{field}`", code="missing", hint=f"add `{field}`", path=field)
    steps = found["steps"].value
    if not isinstance(steps, list | tuple):
        raise wrong_type("steps", "a list", steps)
    if len(steps) > limits.steps_per_plan:
        hint = f"at most {limits.steps_per_plan} (limits.steps_per_plan)"
        raise ValidationError(f"the plan has {len(steps)} steps", code="too_many_steps", hint=hint, path="steps")
    fields = {field: written for field, written in found.items() if field in Plan.__struct_fields__}
    fields["steps"] = Written("steps", _steps(steps, in_seconds))
    fields["config"] = Written("config", _plan_config(found, in_seconds))
    return convert(Plan, fields, "")


def _plan_config(found: dict[str, Written], in_seconds: bool) -> ExecutionConfig:
    """The plan's settings, from its `config` and from beside it."""
    beside = {field: written for field, written in found.items() if field in _OF_CONFIG}
    within = by_field(_by_name(found["config"].value), aliases.CONFIG, "config") if "config" in found else {}
    for field in beside.keys() & within.keys():
        key = beside[field].key
        message = f"{key}: says the same as `config.{within[field].key}`"
        raise ValidationError(message, code="said_twice", hint="keep one of the two", path=key)
    prefixed = {field: Written(joined("config", key), value) for field, (key, value) in within.items()}
    return _config({**prefixed, **beside}, "", in_seconds)


def _steps(documents: list[object] | tuple[object, ...], in_seconds: bool) -> list[Step]:
    steps = [by_field(document, aliases.STEP, f"steps[{position}]") for position, document in enumerate(documents)]
    names = _step_ids(steps)
    return [_step(fields, names, position, in_seconds) for position, fields in enumerate(steps)]


def _step_ids(steps: list[dict[str, Written]]) -> list[str]:
    """Every step's id: the one it was given, else its task's name, numbered from the second on (`name_2`)."""
    names: list[str] = []
    taken = {str(fields["id"].value) for fields in steps if "id" in fields}
    uses: dict[str, int] = {}
    for position, fields in enumerate(steps):
        path = f"steps[{position}]"
        if "task" not in fields:
            raise ValidationError(f"{path}.task: missing", code="missing", hint="name the task that it runs", path=f"{path}.task")
        for field in ("task", "id"):
            if field in fields and not isinstance(fields[field].value, str):
                raise wrong_type(joined(path, fields[field].key), "text", fields[field].value)
        if "id" in fields:
            names.append(fields["id"].value)
            continue
        base = name = ids.token_from(fields["task"].value)
        stem = base[: limits.id_chars - 8]  # long names that differ only at their end are cut to the same one
        while name in taken:
            uses[stem] = uses.get(stem, 1) + 1
            suffix = f"_{uses[stem]}"
            name = base[: limits.id_chars - len(suffix)] + suffix
        taken.add(name)
        names.append(name)
    return names


def _step(fields: dict[str, Written], names: list[str], position: int, in_seconds: bool) -> Step:
    path = f"steps[{position}]"
    fields = {**fields, "id": Written("id", names[position])}
    if "depends_on" in fields:
        key, value = fields["depends_on"]
        fields["depends_on"] = Written(key, _depends_on(value, names, joined(path, key)))
    for field in ("params", "metadata"):
        if field in fields:
            key, value = fields[field]
            fields[field] = Written(key, json_value(value, joined(path, key)))
    return _settings(Step, fields, path, in_seconds)


def _depends_on(value: object, names: list[str], path: str) -> list[str]:
    """Ids, from ids and positions (counted from 0); one of them may stand without a list."""
    if isinstance(value, str | int):
        value = [value]
    if not isinstance(value, list | tuple):
        raise wrong_type(path, "a list of step ids or positions", value)
    found: list[str] = []
    for number, item in enumerate(value):
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, bool) or not isinstance(item, int):
            raise wrong_type(f"{path}[{number}]", "a step's id or position", item)
        elif 0 <= item < len(names):
            found.append(names[item])
        else:
            message = f"{path}[{number}]: there is no step at position {shown(item)}"
            hint = f"positions are 0 to {len(names) - 1}"
            raise ValidationError(message, code="unknown_dependency", hint=hint, path=f"{path}[{number}]")
    return found


# Settings ------------------------------------------------------------------------------------------------------------


def _by_name(config: object) -> object:
    """`config` with its settings by their names, if it is the object: that is checked as if it had been written."""
    if isinstance(config, ExecutionConfig):
        return {field: value for field in config.__struct_fields__ if (value := getattr(config, field)) != {}}
    return config


def _config(fields: dict[str, Written], path: str, in_seconds: bool) -> ExecutionConfig:
    """The settings that `fields` say, a preset among them being the weakest."""
    if "preset" in fields:
        fields = dict(fields)
        fields = {**_preset(fields.pop("preset"), path), **fields}
    return _settings(ExecutionConfig, fields, path, in_seconds) if fields else EMPTY_CONFIG


def _preset(written: Written, path: str) -> dict[str, Written]:
    key, name = written
    where = joined(path, key)
    try:
        preset = ExecutionConfig.preset(name)
    except ValidationError as error:
        raise ValidationError(f"{where}: {error.message}", code=error.code, hint=error.hint, path=where) from None
    return {field: Written(field, value) for field, value in msgspec.structs.asdict(preset).items() if value is not None}


# Values --------------------------------------------------------------------------------------------------------------


def _settings(kind: type[T], fields: dict[str, Written], path: str, in_seconds: bool) -> T:
    """`fields` as a `kind`, with its durations in milliseconds, and what it says of flow control."""
    converted = with_durations(fields, path, in_seconds)
    if "rate_limit" in fields:
        key, value = fields["rate_limit"]
        converted["rate_limit"] = Written(key, read_rate_limit(value, joined(path, key), in_seconds=in_seconds))
    if "concurrency" in fields:
        key, value = fields["concurrency"]
        counted: Counted = "executions" if issubclass(kind, ExecutionConfig) else "steps"
        converted["concurrency"] = Written(key, read_key(value, joined(path, key), of=counted))
    if "resources" in fields:
        key, value = fields["resources"]
        converted["resources"] = Written(key, read_requirements(value, joined(path, key), in_seconds=in_seconds))
    return convert(kind, converted, path)


def _bad_json(error: Exception) -> PlanInvalid:
    deep = isinstance(error, RecursionError)
    what = "nested too deeply" if deep else shown(str(error))
    return PlanInvalid(f"the plan is not JSON: {what}", code="too_deep" if deep else "bad_json", hint="send one JSON object")
