"""JSON Schemas (2020-12) of all messages, from the Structs that the engine decodes them with.

What a Struct cannot say is added here: what is checked beyond the types, or travels otherwise than it is held.
"""

import re
from typing import Any, Final

import msgspec

from esexec.domain import commands as c
from esexec.domain import limits
from esexec.domain.plan import Plan
from esexec.protocol.catalog import CHANNELS, Message

Schema = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
ID: Final = "esexec.schema.json"
_TOKEN: Final = rf"^[A-Za-z0-9_-]{{1,{limits.id_chars}}}$"
_PLAN_FILE: Final = {
    "type": "object",
    "description": "A plan as in a plan file, with any key that may be written there. Its canonical form is `Plan`.",
}


def messages() -> dict[str, Message]:
    """Every kind of message that has a body of its own, by its name."""
    return {one.name: one for channel in CHANNELS for one in channel.messages if one.kind not in (None, Any)}


def schemas() -> Schema:
    """One document whose `$defs` hold a schema for every message, by its name, and for what they are made of."""
    return {"$schema": DIALECT, "$id": ID, "title": "The messages of esexec", "$defs": definitions("#/$defs/")}


def definitions(prefix: str) -> dict[str, Schema]:
    """The schemas by name; they refer to each other by `prefix` and name."""
    wanted = messages()
    kinds = [_describable(one.kind) for one in wanted.values()]
    found, components = msgspec.json.schema_components([*kinds, Plan], ref_template=prefix + "{name}")
    for name, schema in zip(wanted, found, strict=False):
        made = schema["$ref"].removeprefix(prefix)
        if made != name:
            components[name] = components.pop(made) | {"title": name}
    _add_formats(components, kinds)
    _add_what_structs_cannot_say(components, prefix)
    return {name: _portable(components[name]) for name in sorted(components)}


def _describable(kind: Any) -> Any:
    """The kind itself; or its like, where a field has a default that is no JSON (a plan that is not there)."""
    if kind not in (c.StartExecution, c.PutPlan):
        return kind
    fields: list[Any] = []
    for field in msgspec.structs.fields(kind):
        if field.name == "plan":
            fields.append((field.name, Any, msgspec.UNSET))
        elif field.required:
            fields.append((field.name, field.type))
        else:
            made = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
            fields.append((field.name, field.type, made))
    like = msgspec.defstruct(kind.__name__, fields, forbid_unknown_fields=True, kw_only=True)
    like.__doc__ = kind.__doc__
    return like


def _add_what_structs_cannot_say(components: dict[str, Schema], prefix: str) -> None:
    for kind in c.VERBS.values():
        components[kind.__name__]["properties"]["id"]["pattern"] = _TOKEN
    for name in ("StartExecution", "PutPlan"):
        components[name]["properties"]["plan"] = _PLAN_FILE
    for name, field in (("ExecutionCreated", "plan"), ("RecoveryRequest", "plan")):
        components[name]["properties"][field] = {"$ref": f"{prefix}Plan"}
    components["StartExecution"]["oneOf"] = [
        {"required": [one], "properties": {one: {"not": {"type": "null"}}}} for one in ("plan", "plan_id", "task")
    ]
    components["CloudEvent"]["properties"]["position"] = {
        "type": "string",
        "pattern": "^[0-9]+$",
        "description": "The commit's sequence in the log: CloudEvents' numbers end at 2^31.",
    }


def _add_formats(components: dict[str, Schema], kinds: list[Any]) -> None:
    """Every time has its offset on the wire, also where the type does not insist."""
    for struct in _structs_in(msgspec.inspect.multi_type_info(kinds), {}).values():
        properties = components.get(struct.cls.__name__, {}).get("properties", {})
        for field in struct.fields:
            options = field.type.types if isinstance(field.type, msgspec.inspect.UnionType) else (field.type,)
            if any(isinstance(one, msgspec.inspect.DateTimeType) for one in options) and field.encode_name in properties:
                schema = properties[field.encode_name]
                for one in schema.get("anyOf", [schema]):
                    if one.get("type") == "string":
                        one["format"] = "date-time"


def _structs_in(part: Any, found: dict[type, Any]) -> dict[type, Any]:
    """All Structs that these types are made of."""
    if isinstance(part, msgspec.inspect.StructType):
        if part.cls in found:
            return found
        found[part.cls] = part
    if isinstance(part, list | tuple):
        for one in part:
            _structs_in(one, found)
    elif isinstance(part, msgspec.inspect.Type | msgspec.inspect.Field):
        for name in part.__struct_fields__:
            _structs_in(getattr(part, name), found)
    return found


def _portable(part: Any) -> Any:
    """As any validator reads it: `\\Z` is Python's, `discriminator` OpenAPI's. Docstrings are unwrapped."""
    if isinstance(part, list):
        return [_portable(one) for one in part]
    if not isinstance(part, dict):
        return part
    made = {key: _portable(value) for key, value in part.items() if key != "discriminator"}
    if isinstance(made.get("pattern"), str):
        made["pattern"] = made["pattern"].replace(r"\Z", "$")
    if isinstance(made.get("description"), str):
        made["description"] = re.sub(r"(?<!\n)\n(?!\n)", " ", made["description"])
    return made
