"""A gateway whose database was replaced by a backup, as its clients meet it."""

from pathlib import Path

import pytest

from tests.support.client import Client
from tests.support.engines import ON_SCALE
from tests.support.fake_profile import FakeProfile
from tests.support.gateway import running_gateway, stored_messages
from tests.support.talk import search_index_is_sound
from ws_gateway.__main__ import main


@pytest.fixture(autouse=True)
def _data_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DUET_DATA_DIR", str(tmp_path / "data"))


@pytest.mark.skipif(ON_SCALE, reason="PostgreSQL is no file of the gateway's")
async def test_cursor_of_the_lost_database_is_answered_with_resync(tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    profile = FakeProfile()
    ann, bob = profile.sign_up("ann"), profile.sign_up("bob")
    async with (
        running_gateway(data, profile=profile) as gateway,
        gateway.talking(ann) as a,
        gateway.talking(bob) as b,
    ):
        await a.say(bob.user_id, "kept", "1")
        await b.expect("message", text="kept")
        assert main(["backup", str(backup)]) == 0
        await a.say(bob.user_id, "lost", "2")
        cursor = (await b.expect("message", text="lost"))["cursor"]
        assert await found(a, "lost") == ["lost"]
    assert main(["restore", str(backup)]) == 0
    async with (
        running_gateway(data, profile=profile) as gateway,
        gateway.talking(ann) as a,
        Client.open(gateway.url) as b,
    ):
        await b.connect(bob.access_token, resume=cursor)
        assert (await b.expect("resync"))["cursor"] == b.connected["cursor"]
        ack = await a.say(bob.user_id, "another at the same place", "3")
        assert ack["seq"] == 2
        await b.expect("message", seq=2, text="another at the same place")
        assert await found(a, "lost") == []
        assert await found(a, "place") == ["another at the same place"]
        assert await found(a, "kept") == ["kept"]
    assert [text for *_, text in stored_messages(data / "messages.db")] == [
        "kept",
        "another at the same place",
    ]


@pytest.mark.skipif(ON_SCALE, reason="PostgreSQL is no file of the gateway's")
async def test_compacted_files_hold_what_they_held(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, profile = tmp_path / "data", FakeProfile()
    ann, bob = profile.sign_up("ann"), profile.sign_up("bob")
    async with running_gateway(data, profile=profile) as gateway, gateway.talking(ann) as a:
        for number in range(300):
            ack = await a.say(bob.user_id, f"word {number} {'x' * 3000}", f"{number}")
            if number:
                await a.send(
                    type="delete", id=f"d{number}", conversation=ack["conversation"], seq=ack["seq"]
                )
                await a.expect("ack", id=f"d{number}")
        assert len(await found(a, "word")) == 1
    before = sum((data / name).stat().st_size for name in ("messages.db", "search.db"))
    assert main(["compact"]) == 0
    after = sum((data / name).stat().st_size for name in ("messages.db", "search.db"))
    assert after < before
    said = f"{before / 1e6:.1f} MB before, {after / 1e6:.1f} MB now"
    assert said in capsys.readouterr().out
    async with running_gateway(data, profile=profile) as gateway, gateway.talking(ann) as a:
        assert len(await found(a, "word")) == 1
        await a.say(bob.user_id, "word once more", "more")
        assert len(await found(a, "word")) == 2
    assert search_index_is_sound(data / "messages.db")


@pytest.mark.skipif(ON_SCALE, reason="PostgreSQL is no file of the gateway's")
async def test_compacting_does_away_with_a_damaged_index(tmp_path: Path) -> None:
    data, profile = tmp_path / "data", FakeProfile()
    ann, bob = profile.sign_up("ann"), profile.sign_up("bob")
    async with running_gateway(data, profile=profile) as gateway, gateway.talking(ann) as a:
        await a.say(bob.user_id, "word", "1")
        assert len(await found(a, "word")) == 1
    (data / "search.db").write_bytes(b"not a database")
    assert main(["compact"]) == 0
    assert not (data / "search.db").exists()
    async with running_gateway(data, profile=profile) as gateway, gateway.talking(ann) as a:
        assert len(await found(a, "word")) == 1


async def found(client: Client, query: str) -> list[str]:
    """The texts that a search finds."""
    await client.send(type="search", id=f"s {query}", query=query)
    return [
        item["message"]["text"]
        for item in (await client.expect("search", id=f"s {query}"))["items"]
    ]


@pytest.mark.skipif(ON_SCALE, reason="PostgreSQL is no file of the gateway's")
async def test_running_gateway_is_not_restored_under_its_feet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running_gateway(tmp_path / "data"):
        assert main(["backup", str(tmp_path / "backup")]) == 0
        assert main(["restore", str(tmp_path / "backup")]) == 1
    assert "stop the gateway first" in capsys.readouterr().err


def test_what_is_no_backup_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["restore", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err == f"ws_gateway: {tmp_path / 'none'} does not exist\n"
