"""What must hold of flow control beyond the types of its fields, wherever it is said: in plans, settings, announcements.

`reading` makes the values from what people write; here they are as they travel and are stored.
"""

import msgspec

from esexec.domain import limits
from esexec.domain.errors import ErrorInfo, ValidationError
from esexec.domain.explain import joined
from esexec.domain.flow import Key, RateLimit, ResourcePool, ResourceRequirement
from esexec.domain.flow_keys import Counted, check_key
from esexec.domain.settings import ExecutionConfig, NamespaceConfig, TaskInfo, TaskSettings
from esexec.domain.shape import check_shape


def check_settings(settings: TaskSettings, path: str = "") -> None:
    """What `settings` say of flow control. Raises ValidationError: see `check_rate_limit` and the others."""
    if settings.rate_limit is not None:
        check_rate_limit(settings.rate_limit, joined(path, "rate_limit"))
    if isinstance(settings, ExecutionConfig) and settings.concurrency is not None:
        check_concurrency(settings.concurrency, joined(path, "concurrency"), of="executions")
    if isinstance(settings, NamespaceConfig):
        for queue, said in settings.queues.items():
            check_settings(said, joined(path, f"queues.{queue}"))
    if isinstance(settings, TaskInfo):
        check_needs(settings.concurrency, settings.resources, path)


def settings_problem(settings: TaskSettings, path: str) -> ErrorInfo | None:
    """Why settings that came from outside cannot be, if so; see `check_settings`."""
    try:
        check_settings(settings, path)
    except ValidationError as error:
        return error.info
    return None


def check_needs(concurrency: Key | None, resources: tuple[ResourceRequirement, ...], path: str) -> None:
    """What a step or a task says beside its settings. Raises as `check_settings` does."""
    if concurrency is not None:
        check_concurrency(concurrency, joined(path, "concurrency"), of="steps")
    if resources:
        check_requirements(resources, joined(path, "resources"))


def check_rate_limit(limit: RateLimit, path: str) -> None:
    """Raises ValidationError: `bad_key`, `bad_reference`."""
    if limit.key is not None:
        check_key(limit.key, of="steps", bare=False, path=joined(path, "key"))


def check_concurrency(key: Key, path: str, *, of: Counted) -> None:
    """Raises ValidationError: `bad_key`, `bad_reference`; `policy_of_executions` for a policy that steps cannot have."""
    check_key(key.key, of=of, bare=True, path=joined(path, "key"))
    if key.scope is not None and "${" in key.scope:
        where = joined(path, "scope")
        hint = "put what differs into `key`: ${input.a}/${input.b}"
        raise ValidationError(f"{where}: a scope is a name, without references", code="bad_key", hint=hint, path=where)
    if of == "steps" and key.policy != "queue":
        where = joined(path, "policy")
        raise ValidationError(
            f"{where}: steps can only wait for their turn; `{key.policy}` is for executions",
            code="policy_of_executions",
            hint="leave it out, or say the key of the plan or of the start",
            path=where,
        )


def check_requirements(requirements: tuple[ResourceRequirement, ...], path: str) -> None:
    """Raises ValidationError: `too_many_requirements`, `requirements_too_large`, `too_deep`."""
    if len(requirements) > limits.requirements:
        hint = f"at most {limits.requirements} (limits.requirements)"
        raise ValidationError(f"{path}: {len(requirements)} requirements", code="too_many_requirements", hint=hint, path=path)
    for number, requirement in enumerate(requirements):
        check_shape(requirement.constraints, path=f"{path}[{number}].constraints", size_max=limits.pool_bytes)
    _check_bytes(requirements, "requirements_too_large", path)


def check_pool(pool: ResourcePool, path: str = "") -> None:
    """Raises ValidationError: `pool_too_large`, `too_deep`, `too_large`."""
    check_shape(pool.attributes, path=joined(path, "attributes"), size_max=limits.pool_bytes)
    _check_bytes(pool, "pool_too_large", path)


def _check_bytes(value: object, code: str, path: str) -> None:
    if (size := len(msgspec.json.encode(value))) > limits.pool_bytes:
        where, named = (f"{path}: ", {"path": path}) if path else ("", {})
        hint = f"at most {limits.pool_bytes} (limits.pool_bytes)"
        raise ValidationError(f"{where}{size} bytes", code=code, hint=hint, **named)
