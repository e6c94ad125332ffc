"""Who we are to the server: refused, forbidden, thrown out, over TLS; said in one line and without secrets."""

import asyncio
import contextlib
import logging
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from esexec.domain.errors import Unavailable
from esexec.nats.address import redacted
from esexec.nats.connection import connect
from esexec.nats.embedded import find_executable
from tests.server import NatsServer


@pytest.fixture(autouse=True)
def warnings_are_seen(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)


@contextlib.contextmanager
def server_with(config: str, tmp_path: Path) -> Any:
    """A server with a configuration of its own (users, permissions); yields its port and what gives it another one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    file = tmp_path / "nats.conf"

    def configure(config: str) -> None:
        file.write_text(f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{tmp_path}/js" }}\n{config}\n')

    def reconfigure(config: str) -> None:
        configure(config)
        process.send_signal(signal.SIGHUP)

    configure(config)
    process = subprocess.Popen([find_executable(), "-c", str(file)], stderr=subprocess.DEVNULL)
    try:
        yield port, reconfigure
    finally:
        process.kill()
        process.wait()


async def test_bad_credentials_fail_at_once_and_are_not_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A refusal is Unavailable with a hint, also with patience; the password appears nowhere."""
    with server_with('authorization { user: "u", password: "right" }', tmp_path) as (port, _):
        (await connect(f"nats://u:right@127.0.0.1:{port}", name="test", patience=10)) and None
        begin = time.monotonic()
        with pytest.raises(Unavailable) as refused:
            await connect(f"nats://u:secret-1@127.0.0.1:{port}", name="test", patience=10)
        with pytest.raises(Unavailable) as refused_too:
            await connect(f"nats://127.0.0.1:{port}", name="test", patience=10, user="u", password="secret-2")
        assert time.monotonic() - begin < 5
        for text in (str(refused.value), str(refused_too.value), *caplog.messages):
            assert "secret" not in text
        assert "refused us" in refused.value.message
        async with await connect(f"nats://127.0.0.1:{port}", name="test", user="u", password="right") as connection:
            assert connection.is_connected


async def test_being_thrown_out_is_told_and_mended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A server that takes our rights away is one line with the reason, however often we ask; we are back when they are."""
    ours, others = (f'authorization {{ user: "u", password: "{password}" }}' for password in ("p", "changed"))
    with server_with(ours, tmp_path) as (port, reconfigure):
        url = f"nats://127.0.0.1:{port}"
        async with await connect(url, name="test", patience=10, user="u", password="p") as connection:
            reconfigure(others)
            refused = f"the NATS server at {url} refuses us: authorization violation"
            async with asyncio.timeout(10):
                while refused not in caplog.messages or connection.is_connected:
                    await asyncio.sleep(0.01)
            reconfigure(ours)
            await connection.wait_connected(10)
            assert await connection.flush()
        lost, back = f"lost the NATS server at {url}; reconnecting", f"the NATS server at {url} is back"
        assert sorted(caplog.messages[:2]) == sorted([refused, lost])
        assert caplog.messages[2:] == [back]


@pytest.mark.parametrize("kind", ["credentials", "nkeys_seed"])
async def test_a_missing_credentials_file_is_named(nats_server: NatsServer, tmp_path: Path, kind: Any) -> None:
    """A credentials file that cannot be read is what the error speaks of, not the server."""
    with pytest.raises(Unavailable) as refused:
        await connect(nats_server.url, name="test", **{kind: tmp_path / "none"})
    assert "credentials file" in refused.value.message


async def test_a_forbidden_subject_is_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What the server does not allow is one clear line per subject, and the connection stays."""
    permissions = 'permissions: { publish: { deny: "no.pub" }, subscribe: { deny: "no.sub" } }'
    with server_with(f'authorization {{ users: [ {{ user: "u", password: "p", {permissions} }} ] }}', tmp_path) as (port, _):
        url = f"nats://127.0.0.1:{port}"

        async def on_message(_: Any) -> None: ...

        async with await connect(url, name="test", patience=10, user="u", password="p") as connection:
            for _ in range(3):
                await connection.publish("no.pub", b"")
            await connection.subscribe("no.sub", on_message)
            assert await connection.flush()
            assert connection.is_connected
        assert caplog.messages == [
            f"the NATS server at {url} does not allow us to publish to no.pub",
            f"the NATS server at {url} does not allow us to subscribe to no.sub",
        ]


async def test_tls_is_never_replaced_by_plaintext(nats_server: NatsServer) -> None:
    """Where TLS was asked for and the server has none, nothing is sent to it."""
    with pytest.raises(Unavailable) as refused:
        await connect(nats_server.url.replace("nats://", "tls://"), name="test", user="u", password="p", patience=10)
    assert "no TLS" in refused.value.message


def test_addresses_are_shown_without_secrets() -> None:
    """User, password and token never appear in an address that is shown."""
    assert redacted("a:1, nats://b") == "nats://a:1,nats://b"
    assert redacted("nats://u:p@a:1, tls://token@b:2") == "nats://a:1,tls://b:2"
    assert redacted("nats://u:p,/@@[::1]:4222") == "nats://[::1]:4222"
