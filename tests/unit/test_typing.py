"""What users write type-checks as they would expect, and what is wrong does not."""

import subprocess
import sys
from pathlib import Path

import pytest

SNIPPETS = sorted((Path(__file__).parents[1] / "typing").glob("*.py"))


def test_the_snippets_pass_mypy_strict(tmp_path_factory: pytest.TempPathFactory) -> None:
    """All of `tests/typing`: an expected error that does not come is an error too (`warn_unused_ignores`)."""
    assert SNIPPETS
    root = Path(__file__).parents[2]
    cache = root / ".mypy_cache"
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", f"--cache-dir={cache}", *map(str, SNIPPETS)],
        cwd=root, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
