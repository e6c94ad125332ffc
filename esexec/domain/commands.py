"""What clients may wish. One Struct per verb; unknown fields are refused.

A command travels on `esexec.<ns>.cmd.<execution>.<verb>`: the execution and the verb stand in the subject, the rest in the
body. `id` names the command; the same id again is the same command (answered, never applied twice).
`confirm`: whether a success is answered too, on `reply.<execution>.<id>`. A refusal always is. Clients that watch the
execution's commits need no confirmation: the commit that carries out a command names its id.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from esexec.domain import limits
from esexec.domain.settings import EMPTY_CONFIG, ExecutionConfig, TaskSettings

Text = Annotated[str, Meta(max_length=limits.text_chars)]


class _Command(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, kw_only=True, frozen=True, gc=False):
    id: str
    confirm: bool = True
    actor: Annotated[str, Meta(max_length=limits.name_chars)] | None = None


NO_PLAN = msgspec.Raw()
"""Stands where a start names a task and no plan."""


class StartExecution(_Command, frozen=True, kw_only=True):
    """Run a plan, or one task (a one-step plan whose params are `input`). Exactly one of `plan` and `task` is given."""

    plan: msgspec.Raw = NO_PLAN
    task: str | None = None
    input: Any = None
    context: dict[str, Any] = {}
    config: ExecutionConfig = EMPTY_CONFIG
    metadata: dict[str, Any] = {}
    idempotency_key: Annotated[str, Meta(min_length=1, max_length=limits.idempotency_key_chars)] | None = None


class CancelExecution(_Command, frozen=True, kw_only=True):
    """End an execution that has not ended."""

    reason: Text = ""


class ConfigureNamespace(_Command, frozen=True, kw_only=True):
    """Set the namespace's level of the settings; fields that are not given keep their value (entity `_settings`)."""

    config: ExecutionConfig


class AnnounceTasks(_Command, frozen=True, kw_only=True):
    """A worker says which tasks it has and their settings (entity `_settings`)."""

    tasks: dict[str, TaskSettings]
    worker: str = ""


Command = StartExecution | CancelExecution | ConfigureNamespace | AnnounceTasks

VERBS: dict[str, type[Command]] = {
    "start": StartExecution,
    "cancel": CancelExecution,
    "configure": ConfigureNamespace,
    "announce": AnnounceTasks,
}
"""The last token of a command's subject, and what its body is."""
