"""The id grammar. An id that passed it can stand in a NATS subject without widening it.

`[A-Za-z0-9_-]`, 1 to 64 characters. A leading `_` marks entities that executions share; users may not take such an id.
"""

import re
from typing import TypeVar

from esexec.domain import limits

N = TypeVar("N", str, str | None)

_TOKEN = re.compile(rf"[A-Za-z0-9_-]{{1,{limits.id_chars}}}", re.ASCII)
_NOT_TOKEN = re.compile(r"[^A-Za-z0-9_-]+", re.ASCII)
_TASK_NAME = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.:/-]{{0,{limits.task_name_chars - 1}}}", re.ASCII)


def is_token(text: str) -> bool:
    """Whether `text` may stand as one token of a subject (ours or a user's)."""
    return (text.isalnum() and text.isascii() and len(text) <= limits.id_chars) or _TOKEN.fullmatch(text) is not None


def is_user_id(text: str) -> bool:
    """Whether a user may name an execution, step, command or queue so."""
    return text[:1] != "_" and is_token(text)


def is_task_name(text: str) -> bool:
    """Whether a task may be called so: as an id, and dots, colons and slashes after the first character."""
    return _TASK_NAME.fullmatch(text) is not None


def token_from(text: str) -> str:
    """The nearest legal id to `text`; never empty. Used to make a step's id from its task's name."""
    return _NOT_TOKEN.sub("_", text).strip("_")[: limits.id_chars] or "step"


def namespace_named(namespace: N, instance: str | None) -> N | str:
    """The namespace that is meant where `instance`, another name for it, may be given in its place."""
    return namespace if instance is None else instance
