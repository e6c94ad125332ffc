"""Who we are, said in variables, files and contexts, to servers that ask: a password, a token, an nkey, a creds file, TLS."""

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import nkeys
import pytest

import esexec
from esexec.configuration import configuration
from esexec.domain.errors import Unavailable
from esexec.nats.connection import connect
from tests.cli_tasks import greet
from tests.integration.test_credentials import server_with

CERTIFICATES = Path(__file__).parents[1] / "certificates"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home and a working directory of the test's own, and nothing said in the environment."""
    for name in [*os.environ]:
        if name.startswith(("NATS_", "ESEXEC_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def new_key(kind: int) -> tuple[str, str]:
    """The seed and the public key of a new nkey."""
    seed = nkeys.encode_seed(os.urandom(32), kind)
    return seed.decode(), nkeys.from_seed(bytearray(seed)).public_key.decode()


def token(issuer: str, subject: str, name: str, nats: dict[str, Any]) -> str:
    """A JWT as `nsc` makes them."""

    def part(content: Any) -> str:
        return (
            base64.urlsafe_b64encode(json.dumps(content).encode() if not isinstance(content, bytes) else content)
            .decode()
            .rstrip("=")
        )

    signer = nkeys.from_seed(bytearray(issuer.encode()))
    claims = {"iat": 0, "iss": signer.public_key.decode(), "name": name, "sub": subject, "nats": nats | {"version": 2}}
    claims["jti"] = base64.b32encode(hashlib.sha256(json.dumps(claims).encode()).digest()).decode().rstrip("=")
    signed = f"{part({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{part(claims)}"
    return f"{signed}.{part(signer.sign(signed.encode()))}"


async def does_work(namespace: str = "default") -> None:
    """An engine that was told nothing but where it is: it runs a task."""
    settled = configuration()
    async with (
        await connect(settled.url, name="test", patience=10, **settled.auth),
        esexec.local(tasks=[greet], url=settled.url, projections=False, namespace=namespace, **settled.auth),
        esexec.connect() as client,
    ):
        assert client.namespace == namespace
        assert await client.run("greet", {"name": "Ada"}, wait_timeout=20) == {"greeting": "Hello, Ada!"}


async def is_refused() -> None:
    with pytest.raises(Unavailable) as refused:
        async with esexec.connect():
            pass
    assert "refused us" in refused.value.message or "TLS" in refused.value.message


async def test_a_password_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server and the user in the project's file, the password in the environment; a wrong one is refused."""
    with server_with('authorization { user: "u", password: "right" }', tmp_path) as (port, _):
        (tmp_path / "esexec.toml").write_text(f'server = "nats://127.0.0.1:{port}"\nuser = "u"\nnamespace = "shop"\n')
        monkeypatch.setenv("ESEXEC_PASSWORD", "right")
        await does_work("shop")
        monkeypatch.setenv("ESEXEC_PASSWORD", "wrong")
        await is_refused()


async def test_a_token_in_a_context(tmp_path: Path) -> None:
    """The selected context of the nats program brings server and token."""
    with server_with('authorization { token: "t0ken" }', tmp_path) as (port, _):
        contexts = tmp_path / ".config/nats/context"
        contexts.mkdir(parents=True)
        (contexts / "site.json").write_text(json.dumps({"url": f"nats://127.0.0.1:{port}", "token": "t0ken"}))
        (tmp_path / ".config/nats/context.txt").write_text("site")
        await does_work()
        (contexts / "site.json").write_text(json.dumps({"url": f"nats://127.0.0.1:{port}", "token": "other"}))
        await is_refused()


async def test_an_nkey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file with a seed, named in the environment as the nats program takes it; another one is refused."""
    seed, public = new_key(nkeys.PREFIX_BYTE_USER)
    (tmp_path / "user.nk").write_text(seed)
    (tmp_path / "other.nk").write_text(new_key(nkeys.PREFIX_BYTE_USER)[0])
    with server_with(f"authorization {{ users: [ {{ nkey: {public} }} ] }}", tmp_path) as (port, _):
        monkeypatch.setenv("NATS_URL", f"nats://127.0.0.1:{port}")
        monkeypatch.setenv("NATS_NKEY", str(tmp_path / "user.nk"))
        await does_work()
        monkeypatch.setenv("NATS_NKEY", str(tmp_path / "other.nk"))
        await is_refused()


async def test_a_creds_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A creds file of an operator's account, by `NATS_CREDS`; without it nobody is let in."""
    operator, operator_key = new_key(nkeys.PREFIX_BYTE_OPERATOR)
    account, account_key = new_key(nkeys.PREFIX_BYTE_ACCOUNT)
    user, user_key = new_key(nkeys.PREFIX_BYTE_USER)
    unlimited = dict.fromkeys(
        ("subs", "data", "payload", "imports", "exports", "conn", "leaf", "mem_storage", "disk_storage"), -1
    )
    unlimited |= dict.fromkeys(("streams", "consumer", "max_ack_pending"), -1) | {"wildcards": True}
    of_account = token(operator, account_key, "shop", {"type": "account", "limits": unlimited})
    system_key = new_key(nkeys.PREFIX_BYTE_ACCOUNT)[1]
    of_system = token(
        operator, system_key, "system", {"type": "account", "limits": unlimited | {"disk_storage": 0, "mem_storage": 0}}
    )
    of_user = token(account, user_key, "ada", {"type": "user", "subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {}})
    creds = tmp_path / "ada.creds"
    creds.write_text(
        f"-----BEGIN NATS USER JWT-----\n{of_user}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user}\n------END USER NKEY SEED------\n"
    )
    config = (
        f"operator: {token(operator, operator_key, 'op', {'type': 'operator'})}\n"
        f"resolver: MEMORY\nsystem_account: {system_key}\n"
        f"resolver_preload {{ {account_key}: {of_account}, {system_key}: {of_system} }}"
    )
    with server_with(config, tmp_path) as (port, _):
        monkeypatch.setenv("NATS_URL", f"nats://127.0.0.1:{port}")
        monkeypatch.setenv("NATS_CREDS", str(creds))
        await does_work()
        async with esexec.connect() as client:
            assert client.actor == "ada"
        monkeypatch.delenv("NATS_CREDS")
        await is_refused()


async def test_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TLS with our own authority, and a certificate that the server asks for; without them nothing is said."""
    tls = (
        f'tls {{ cert_file: "{CERTIFICATES}/server.pem", key_file: "{CERTIFICATES}/server.key", '
        f'ca_file: "{CERTIFICATES}/ca.pem", verify: true }}'
    )
    with server_with(tls, tmp_path) as (port, _):
        said = {"server": f"tls://127.0.0.1:{port}", "tls_ca": CERTIFICATES / "ca.pem"}
        ours = {"tls_cert": CERTIFICATES / "client.pem", "tls_key": CERTIFICATES / "client.key"}
        (tmp_path / "esexec.toml").write_text("".join(f'{key} = "{value}"\n' for key, value in (said | ours).items()))
        await does_work()
        (tmp_path / "esexec.toml").write_text(f'server = "tls://127.0.0.1:{port}"\n')
        await is_refused()
