"""Access tokens that run out, refresh tokens that rotate, and processes that share them."""

import asyncio
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keyring
import keyring.backend
import pytest

import duet_client
from duet_client import Account, FileCredentials, KeyringCredentials, MemoryCredentials, Tokens
from duet_client.credentials import CredentialStore
from duet_client.profile_api import ProfileApi
from duet_client.tokens import TokenKeeper
from tests.client_python.proxy import Fault, Proxy
from tests.client_python.services import Duet, expect


class MemoryKeyring(keyring.backend.KeyringBackend):
    """A keyring without a platform."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        if self.kept.pop((service, username), None) is None:
            raise keyring.errors.PasswordDeleteError("there is none")


@pytest.fixture
def platform_keyring() -> Iterator[MemoryKeyring]:
    before = keyring.get_keyring()
    mine = MemoryKeyring()
    keyring.set_keyring(mine)
    yield mine
    keyring.set_keyring(before)


@pytest.fixture(params=["memory", "file", "keyring"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, platform_keyring: MemoryKeyring
) -> CredentialStore:
    """Each store passes the same tests."""
    if request.param == "memory":
        return MemoryCredentials()
    if request.param == "file":
        return FileCredentials(tmp_path / "folder" / "tokens.json")
    return KeyringCredentials("ann", tmp_path / "lock")


async def test_store_keeps_replaces_and_forgets(store: CredentialStore) -> None:
    tokens = Tokens("access", "refresh", 12.5, "s_1", "u_1", "ann")
    assert store.load() is None
    store.clear()
    async with store.locked():
        store.save(Tokens("older", "older", 1.0, "s_1", "u_1", "ann"))
        store.save(tokens)
        other = asyncio.create_task(store.locked().__aenter__())
        await asyncio.wait([other], timeout=0)
        assert not other.done()
        other.cancel()
        await asyncio.wait([other])
    assert store.load() == tokens
    assert "refresh" not in repr(tokens)
    store.clear()
    assert store.load() is None


def test_file_is_its_owners_alone_and_a_damaged_one_counts_as_none(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    FileCredentials(path).save(Tokens("a", "r", 1.0, "s", "u", "ann"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["tokens.json"]
    path.write_text("{")
    assert FileCredentials(path).load() is None


def test_keyring_that_keeps_nothing_is_no_keyring(platform_keyring: MemoryKeyring) -> None:
    assert KeyringCredentials.works()
    keyring.set_keyring(keyring.backends.fail.Keyring())  # type: ignore[no-untyped-call]
    assert not KeyringCredentials.works()


async def test_many_callers_share_one_refresh_and_processes_do_too(
    duet: Duet, ann: Tokens, tmp_path: Path
) -> None:
    store = FileCredentials(tmp_path / "tokens")
    store.save(ann)
    async with ProfileApi(duet.profile_url, trust_env=False) as api:
        keepers = [TokenKeeper(api, FileCredentials(tmp_path / "tokens")) for _ in range(5)]
        renewed = await asyncio.gather(
            *(keeper.renew(ann.access_token) for keeper in keepers for _ in range(10))
        )
    assert len({tokens.access_token for tokens in renewed}) == 1
    assert store.load() == renewed[0]
    async with Account(duet.profile_url, store, trust_env=False) as account:
        assert len(await account.devices()) == 1


async def test_cancelled_caller_does_not_cancel_the_refresh(
    duet: Duet, ann: Tokens, tmp_path: Path
) -> None:
    store = MemoryCredentials(ann)
    async with ProfileApi(duet.profile_url, trust_env=False) as api:
        keeper = TokenKeeper(api, store)
        impatient = asyncio.create_task(keeper.renew(ann.access_token))
        patient = asyncio.create_task(keeper.renew(ann.access_token))
        await asyncio.wait([asyncio.create_task(asyncio.sleep(0))])
        impatient.cancel()
        assert (await patient).access_token != ann.access_token
        assert impatient.cancelled() or impatient.done()


async def test_access_token_that_died_before_its_time_is_renewed(
    duet: Duet, ann: Tokens, tmp_path: Path
) -> None:
    spoilt = Tokens("x" + ann.access_token[1:], *_rest(ann))
    store = MemoryCredentials(spoilt)
    async with Account(duet.profile_url, store, trust_env=False) as account:
        assert (await account.profile()).username == ann.username
    async with duet.connect(MemoryCredentials(Tokens("bad", *_rest(ann))), tmp_path / "a") as a:
        await a.conversations()


async def test_dead_tokens_ask_for_a_login(duet: Duet, ann: Tokens, tmp_path: Path) -> None:
    dead = Tokens("bad", "bad", ann.expires_at, ann.session_id, ann.user_id, ann.username)
    with pytest.raises(duet_client.LoginRequired):
        async with duet.connect(dead, tmp_path / "a"):
            pass
    with pytest.raises(duet_client.LoginRequired):
        async with duet.connect(MemoryCredentials(), tmp_path / "a"):
            pass


async def test_expiring_token_is_renewed_on_the_connection_and_kept_before_it_is_used(
    duet: Duet, ann: Tokens, bob: Tokens, tmp_path: Path
) -> None:
    store = FileCredentials(tmp_path / "tokens")
    store.save(ann)
    async with Proxy.before(duet.gateway.url) as proxy, duet.connect(bob, tmp_path / "b") as b:
        refreshed: asyncio.Queue[str] = asyncio.Queue()

        def watch(frame: dict[str, Any]) -> Fault:
            if frame["type"] == "refresh":
                kept = store.load()
                assert kept is not None
                assert kept.access_token == frame["access_token"]
            if frame["type"] == "refreshed":
                refreshed.put_nowait(frame["id"])
            return Fault.NONE

        proxy.from_client = proxy.from_gateway = watch
        async with duet.connect(store, tmp_path / "a", gateway_url=proxy.url) as a:
            for _ in range(3):
                proxy.say(type="expiring", in_s=60)
                async with asyncio.timeout(10):
                    await refreshed.get()
            await b.send(ann.username, "still there?")
            assert (await expect(a, duet_client.NewMessage)).text == "still there?"
        assert proxy.connections == 1


async def test_session_that_ends_while_a_token_is_renewed_needs_a_login(
    duet: Duet, ann: Tokens, tmp_path: Path
) -> None:
    async with (
        Proxy.before(duet.gateway.url) as proxy,
        duet.connect(ann, tmp_path / "a", gateway_url=proxy.url) as a,
        Account(duet.profile_url, ann, trust_env=False) as account,
    ):
        await account.log_out()
        proxy.say(type="expiring", in_s=60)
        with pytest.raises(duet_client.LoginRequired):
            await expect(a, duet_client.NewMessage)


def _rest(tokens: Tokens) -> tuple[str, float, str, str, str]:
    return (
        tokens.refresh_token,
        tokens.expires_at,
        tokens.session_id,
        tokens.user_id,
        tokens.username,
    )
