"""The documents as files."""

import json
from pathlib import Path
from typing import Any

from esexec.protocol.asyncapi import asyncapi
from esexec.protocol.schemas import ID, schemas


def files(version: str) -> dict[str, str]:
    """By the name of the file, what stands in it: the JSON Schemas, and the AsyncAPI document that brings them along."""
    return {ID: _written(schemas()), "asyncapi.json": _written(asyncapi(version))}


def export(directory: Path, version: str) -> list[Path]:
    """Write them, and give their paths. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, text in files(version).items():
        path = directory / name
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths


def _written(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"
