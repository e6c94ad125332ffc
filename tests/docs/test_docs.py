"""The documentation is true: what it shows is run, what it links to is there."""

import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from esexec import Plan
from esexec.nats.embedded import EmbeddedServer, find_executable
from tests.docs.pages import PAGES, ROOT, Block, anchors, blocks, commands, links
from tests.docs.stage import Stage

TRIED = [
    ROOT / "README.md",
    *sorted((ROOT / "docs/tutorial").glob("*.md")),
    *(pytest.param(page, marks=pytest.mark.slow) for page in sorted((ROOT / "docs/how-to").glob("*.md"))),
    ROOT / "docs/reference/protocol.md",
]
BLOCKS = [block for page in PAGES for block in blocks(page)]
OUTSIDE = ("https://", "http://", "mailto:")


def _named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server for one page alone: pages use the namespace `default`, as their readers do, and know nothing of each other."""
    server = EmbeddedServer(tmp_path_factory.mktemp("docs-nats"), sync="2m")
    yield server.start()
    server.stop()


@pytest.fixture
async def stage(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    """Where a page is tried."""
    monkeypatch.syspath_prepend(tmp_path)
    stage = Stage(tmp_path, url)
    yield stage
    await stage.close()


@pytest.mark.timeout(300)  # the README may be the first to install what its JavaScript needs
@pytest.mark.parametrize("page", TRIED, ids=_named)
async def test_page_does_what_it_shows(page: Path, stage: Stage) -> None:
    """Every block of Python and every command of README, tutorial and guides runs, and prints what the page says."""
    for block in blocks(page):
        await stage.play(block)


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language == "python" and block.title], ids=lambda one: one.place
)
def test_a_program_that_is_shown_is_run(block: Block) -> None:
    """A file of Python is a whole program or module, and one that runs something is run by a command of its page."""
    assert block.title is not None
    compile(block.text, block.title, "exec")
    if "asyncio.run(" in block.text:
        behind = [one for one in blocks(block.page) if one.line > block.line and one.language == "console"]
        assert any(f"python {block.title}" in command.line for one in behind for command in commands(one))


def test_server_is_started_as_shown() -> None:
    """Every command line that starts the server with the shipped configuration gives it values that it can read."""
    shown = [one.line for block in BLOCKS if block.language == "console" for one in commands(block)]
    lines = [line.removesuffix("&") for line in shown if "nats-server --config" in line]
    assert lines
    environment = {**os.environ, "PATH": f"{find_executable().parent}{os.pathsep}{os.environ['PATH']}"}
    for line in lines:
        checked = subprocess.run(f"{line} -t", shell=True, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=20)
        assert checked.returncode == 0, f"{line}: {checked.stderr}"


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "yaml"], ids=lambda block: block.place)
def test_yaml_is_yaml_and_plans_are_plans(block: Block) -> None:
    """Every YAML block parses, and one with steps is a plan that would be accepted."""
    document: Any = YAML(typ="safe", pure=True).load(block.text)
    assert isinstance(document, dict)
    if "steps" in document:
        assert Plan.from_dict(document).name == document["name"]


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "json"], ids=lambda block: block.place)
def test_json_is_json(block: Block) -> None:
    """Every JSON block is one JSON document."""
    json.loads(block.text)


@pytest.mark.parametrize("page", PAGES, ids=_named)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link leads to a file, and to a heading if it names one."""
    for target in links(page):
        if target.startswith(OUTSIDE):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{_named(page)}: {target}"
        if anchor:
            assert anchor in anchors(there), f"{_named(page)}: {target}"


def test_every_page_can_be_found() -> None:
    """Every page below docs/ is linked from the index."""
    index = ROOT / "docs/index.md"
    linked = {(index.parent / target.partition("#")[0]).resolve() for target in links(index)}
    pages = {page for page in (ROOT / "docs").rglob("*.md") if page != index and page.parent.name != "adr"}
    assert not {_named(page) for page in pages - linked}
