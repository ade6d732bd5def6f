"""`python -m profile_service` as somebody at a terminal, or a crash, meets it."""

import base64
import concurrent.futures
import contextlib
import json
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.profile_service import (
    PASSWORD,
    SpawnedService,
    service_environment,
    spawned_service,
)


def run(data_dir: Path, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "profile_service", *arguments],
        env=service_environment(data_dir, **changes),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=10) as client:
        yield client


def sign_up(client: httpx.Client, service: SpawnedService, username: str) -> httpx.Response:
    body = {"username": username, "password": PASSWORD}
    return client.post(f"{service.url}/v1/users", json=body)


def damage_index(path: Path, name: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        (page_bytes,) = database.execute("PRAGMA page_size").fetchone()
        found = database.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,))
        (page,) = found.fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * page_bytes)
        file.write(b"\xff" * page_bytes)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_a_clean_exit_even_while_a_feed_is_followed(
    tmp_path: Path, client: httpx.Client, number: signal.Signals
) -> None:
    with spawned_service(tmp_path, DUET_PROFILE_SHUTDOWN_TIMEOUT_S="60") as service:
        headers = {"Authorization": service.credentials.authorization()}
        with client.stream("GET", f"{service.url}/internal/revocations", headers=headers) as feed:
            lines = feed.iter_lines()
            assert next(lines) == "event: ready"
            service.process.send_signal(number)
            assert [line for line in lines if line.startswith("event")] == []
        assert service.process.wait(10) == 0
        service.wait_for("stopped")


def test_an_occupied_port_is_one_clear_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        failed = run(tmp_path, DUET_PROFILE_PORT=str(port))
    assert failed.returncode == 1
    assert f"cannot start: address 127.0.0.1:{port} is in use" in failed.stderr
    assert failed.stderr.count("\n") == 1


def test_an_address_of_another_machine_is_one_clear_line(tmp_path: Path) -> None:
    failed = run(tmp_path, DUET_PROFILE_HOST="192.0.2.1")
    assert failed.returncode == 1
    assert "address 192.0.2.1:0 cannot be used" in failed.stderr
    assert failed.stderr.count("\n") == 1


def test_unusable_settings_are_all_named_at_once(tmp_path: Path) -> None:
    failed = run(
        tmp_path,
        DUET_PROFILE_PORT="http",
        DUET_ACCESS_TOKEN_LIFETIME_S="0",
        DUET_SERVICE_SECRET="short",
    )
    assert failed.returncode == 2
    for name in ("DUET_PROFILE_PORT", "DUET_ACCESS_TOKEN_LIFETIME_S", "DUET_SERVICE_SECRET"):
        assert name in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_key_set_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    failed = run(
        tmp_path,
        DUET_EXTERNAL_ISSUER="https://shop.example",
        DUET_EXTERNAL_AUDIENCE="chat",
        DUET_EXTERNAL_JWKS_FILE=str(tmp_path / "keys.json"),
    )
    assert failed.returncode == 1
    assert f"key set {tmp_path / 'keys.json'}: No such file" in failed.stderr
    assert failed.stderr.count("\n") == 1


def test_a_data_directory_in_use_is_one_clear_line(tmp_path: Path) -> None:
    with spawned_service(tmp_path):
        failed = run(tmp_path)
    assert failed.returncode == 1
    assert "users.db is open in another process" in failed.stderr
    assert failed.stderr.count("\n") == 1


def test_what_is_no_database_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "users.db").write_bytes(b"nonsense" * 1000)
    failed = run(tmp_path)
    assert failed.returncode == 1
    assert "users.db" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_broken_key_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir(mode=0o700)
    (tmp_path / "keys" / "20260101T000000000000Z-broken.pem").write_text("nonsense")
    for arguments in ([], ["rotate-keys"]):
        failed = run(tmp_path, *arguments)
        assert failed.returncode == 1
        assert "broken.pem is not a signing key" in failed.stderr
        assert "Traceback" not in failed.stderr


def test_a_short_secret_in_the_file_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("short")
    failed = run(
        tmp_path, DUET_SERVICE_SECRET="", DUET_SERVICE_SECRET_FILE=str(tmp_path / "secret")
    )
    assert failed.returncode == 1
    assert "fewer than 32 bytes" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_an_unknown_command_is_a_usage_error(tmp_path: Path) -> None:
    assert run(tmp_path, "rotate").returncode == 2
    shown = run(tmp_path, "--help")
    assert shown.returncode == 0
    assert "rotate-keys" in shown.stdout


def test_secrets_on_disk_are_for_the_owner_only(tmp_path: Path) -> None:
    with spawned_service(tmp_path / "data", DUET_SERVICE_SECRET=""):
        pass
    (key,) = (tmp_path / "data" / "keys").iterdir()
    for path in (key, tmp_path / "data" / "service_secret", tmp_path / "data" / "users.db"):
        assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_a_running_service_takes_up_a_rotated_key_and_still_knows_the_old(
    tmp_path: Path, client: httpx.Client
) -> None:
    with spawned_service(tmp_path) as service:
        created = sign_up(client, service, "rotator").json()
        rotated = run(tmp_path, "rotate-keys")
        assert rotated.returncode == 0
        new_key = rotated.stdout.removeprefix("signing with ").strip()
        assert service.wait_for("keys_changed")["kid"] == new_key
        keys = client.get(f"{service.url}/.well-known/jwks.json").json()["keys"]
        assert new_key in [key["kid"] for key in keys]
        assert len(keys) == 2
        me = {"Authorization": f"Bearer {created['access_token']}"}
        assert client.get(f"{service.url}/v1/users/me", headers=me).status_code == 200
        body = {"refresh_token": created["refresh_token"]}
        refreshed = client.post(f"{service.url}/v1/token", json=body).json()
        header = refreshed["access_token"].split(".")[0]
        decoded = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
        assert decoded["kid"] == new_key


def test_a_damaged_page_keeps_no_new_key_from_coming_into_force(tmp_path: Path) -> None:
    with spawned_service(tmp_path):
        pass
    damage_index(tmp_path / "users.db", "audit_by_time")
    with spawned_service(tmp_path) as service:
        assert "malformed" in service.wait_for("prune_failed")["exception"]
        new_key = run(tmp_path, "rotate-keys").stdout.removeprefix("signing with ").strip()
        assert service.wait_for("keys_changed")["kid"] == new_key
        assert service.stop() == 0


def test_tokens_outlive_a_restart(tmp_path: Path, client: httpx.Client) -> None:
    with spawned_service(tmp_path) as service:
        created = sign_up(client, service, "survivor").json()
        assert service.stop() == 0
    with spawned_service(tmp_path) as service:
        me = {"Authorization": f"Bearer {created['access_token']}"}
        assert client.get(f"{service.url}/v1/users/me", headers=me).status_code == 200


def test_kill_during_sign_ups_loses_no_acknowledged_one(tmp_path: Path) -> None:
    acknowledged: list[str] = []
    enough = threading.Event()

    def keep_signing_up(worker: int) -> None:
        with httpx.Client(trust_env=False) as client:
            for number in range(10_000):
                username = f"user-{worker}-{number}"
                try:
                    answer = sign_up(client, service, username)
                except httpx.TransportError:
                    return
                assert answer.status_code == 201
                acknowledged.append(username)
                if len(acknowledged) >= 60:
                    enough.set()

    with spawned_service(tmp_path) as service, concurrent.futures.ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(keep_signing_up, worker) for worker in range(4)]
        assert enough.wait(60)
        service.stop(signal.SIGKILL)
        for worker in workers:
            worker.result(30)
    with spawned_service(tmp_path) as service, httpx.Client(trust_env=False) as client:
        for username in acknowledged:
            body = {"username": username, "password": PASSWORD}
            assert client.post(f"{service.url}/v1/sessions", json=body).status_code == 201
        assert sign_up(client, service, acknowledged[-1].upper()).status_code == 409
        assert service.stop() == 0
    with sqlite3.connect(tmp_path / "users.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


def test_neither_log_nor_audit_trail_holds_a_credential(
    tmp_path: Path, client: httpx.Client
) -> None:
    device = "evil\\u001b[31m"
    with spawned_service(tmp_path, DUET_ACCESS_LOG="true", DUET_LOG_LEVEL="debug") as service:
        created = sign_up(client, service, "discreet").json()
        bad = {"username": "discreet", "password": "hunter2-hunter2"}
        client.post(f"{service.url}/v1/sessions", json=bad)
        client.post(f"{service.url}/v1/sessions", content=f'{{"device_name": "{device}"}}')
        body = {"refresh_token": created["refresh_token"]}
        second = client.post(f"{service.url}/v1/token", json=body).json()
        client.post(f"{service.url}/v1/token", json={"refresh_token": second["refresh_token"]})
        client.post(f"{service.url}/v1/token", json=body)
        client.get(f"{service.url}/v1/users/me?token={created['access_token']}")
        client.get(
            f"{service.url}/v1/users/me",
            headers={
                "Authorization": f"Bearer {created['access_token']}",
                "User-Agent": "evil\x1b[31m",
            },
        )
        assert service.stop() == 0
    log = "".join(service.log)
    with sqlite3.connect(tmp_path / "users.db") as database:
        rows = database.execute("SELECT kind, address, detail FROM audit ORDER BY id").fetchall()
        trail = repr(database.execute("SELECT * FROM audit").fetchall())
    database.close()
    for secret in (PASSWORD, "hunter2-hunter2", created["access_token"], second["refresh_token"]):
        assert secret not in log
        assert secret not in trail
    assert "\x1b" not in log
    assert "refresh_reused" in log
    assert rows == [
        ("sign_up", "127.0.0.1", None),
        ("login_failed", "127.0.0.1", None),
        ("refresh", "127.0.0.1", "rotate"),
        ("refresh", "127.0.0.1", "rotate"),
        ("reuse", "127.0.0.1", "reuse"),
    ]


def test_who_uses_sqlite_does_not_wait_for_what_postgresql_needs() -> None:
    script = (
        "import sys, profile_service.__main__\n"
        "loaded = {'asyncpg', 'psycopg', 'profile_service.adapters.postgres_stores'}\n"
        "sys.exit(', '.join(sorted(loaded & sys.modules.keys())) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
