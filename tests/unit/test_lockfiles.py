"""The lockfiles of the JavaScript in this repository can be used anywhere."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKFILES = [ROOT / "examples/node/package-lock.json", ROOT / "tests/asyncapi/package-lock.json"]


@pytest.mark.parametrize("path", LOCKFILES, ids=lambda path: path.parent.name)
def test_packages_come_from_the_public_registry_and_are_pinned(path: Path) -> None:
    """Every package has its hash, and no address but one of the public registry."""
    packages = {name: said for name, said in json.loads(path.read_text())["packages"].items() if name}
    assert packages
    assert [name for name, said in packages.items() if not said.get("integrity")] == []
    public = "https://registry.npmjs.org/"
    assert [name for name, said in packages.items() if not said.get("resolved", public).startswith(public)] == []
