"""`duet` as a shell meets it: arguments, standard input and output, exit status."""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import stat
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from tests.client_python.services import PASSWORD, Duet


class Ran(msgspec.Struct):
    """What a command did."""

    status: int | None
    out: str
    err: str


class Shell:
    """Somebody's terminal, with an account folder of its own."""

    def __init__(self, duet: Duet, home: Path, name: str) -> None:
        self.duet = duet
        self.home = home
        self.name = name

    async def run(self, *arguments: str, stdin: str = "", **environment: str) -> Ran:
        """Run `duet` to its end."""
        async with self.started(*arguments, stdin=PIPE, **environment) as process:
            out, err = await process.communicate(stdin.encode())
        return Ran(process.returncode, out.decode(), err.decode())

    @contextlib.asynccontextmanager
    async def started(
        self, *arguments: str, stdin: int = PIPE, **environment: str
    ) -> AsyncIterator[Process]:
        """Run `duet` while the context lasts."""
        inherited = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "duet_client.cli",
            *arguments,
            stdin=stdin,
            stdout=PIPE,
            stderr=PIPE,
            env={
                **inherited,
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                "DUET_HOME": str(self.home),
                **environment,
            },
        )
        try:
            async with asyncio.timeout(40):
                yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()

    async def enter(self, command: str) -> Ran:
        """Sign up or log in."""
        return await self.run(
            command,
            self.name,
            "--profile-url",
            self.duet.profile_url,
            "--gateway-url",
            self.duet.gateway.url,
            "--store",
            "file",
            stdin=PASSWORD + "\n",
        )


@pytest.fixture
async def ann(duet: Duet, tmp_path: Path) -> Shell:
    return await _signed_up(duet, tmp_path / "ann", "ann")


@pytest.fixture
async def bob(duet: Duet, tmp_path: Path) -> Shell:
    return await _signed_up(duet, tmp_path / "bob", "bob")


async def _signed_up(duet: Duet, home: Path, prefix: str) -> Shell:
    shell = Shell(duet, home, f"{prefix}-{secrets.token_hex(6)}")
    ran = await shell.enter("signup")
    assert (ran.status, ran.out) == (0, ""), ran.err
    return shell


async def test_message_sent_from_a_pipe_is_in_the_others_history(ann: Shell, bob: Shell) -> None:
    sent = await ann.run("send", bob.name, "-", stdin="two\nlines\n")
    assert (sent.status, sent.out, sent.err) == (0, "", "")
    acks = await ann.run("send", bob.name, "-", "--lines", "--json", stdin="three\nfour\n")
    assert [json.loads(line)["seq"] for line in acks.out.splitlines()] == [2, 3]
    history = await bob.run("history", ann.name)
    assert history.status == 0
    said = f"{ann.name}: two|{ann.name}: three|{ann.name}: four".split("|")
    lines = history.out.splitlines()
    assert lines.pop(1) == "    lines"
    assert [line[20:] for line in lines] == said
    assert "\x1b" not in history.out
    as_json = await bob.run("history", ann.name, "--json", "--limit", "1")
    assert json.loads(as_json.out)["text"] == "four"


async def test_tail_prints_what_comes_and_later_what_was_missed_and_each_once(
    ann: Shell, bob: Shell
) -> None:
    async with bob.started("tail", "--json", "--count", "2") as tail:
        assert tail.stdout is not None
        assert tail.stderr is not None
        assert await tail.stderr.readline() == f"listening as {bob.name}\n".encode()
        for text in ("one", "two"):
            await ann.run("send", bob.name, text)
            assert json.loads(await tail.stdout.readline())["text"] == text
        assert await tail.wait() == 0
    await ann.run("send", bob.name, "three")
    again = await bob.run("tail", ann.name, "--count", "1")
    assert again.out[20:] == f"{ann.name}: three\n"


async def test_search_and_export_find_it(ann: Shell, bob: Shell, tmp_path: Path) -> None:
    await ann.run("send", bob.name, "the \x1b[31mred apples")
    async with asyncio.timeout(20):
        while not (found := await bob.run("search", "apples", "--with", ann.name)).out:
            assert found.status == 0
    assert "the \N{REPLACEMENT CHARACTER}[31mred apples" in found.out
    file = tmp_path / "export.jsonl"
    assert (await bob.run("export", "-o", str(file))).status == 0
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line.get("text") for line in lines] == [None, "the \x1b[31mred apples"]


async def test_devices_are_listed_and_logged_out(ann: Shell, tmp_path: Path) -> None:
    other = Shell(ann.duet, tmp_path / "other", ann.name)
    assert (await other.enter("login")).status == 0
    listed = (await ann.run("devices")).out.splitlines()
    assert [line[0] for line in listed] == ["*", " "]
    assert (await ann.run("logout", "--device", listed[1].split()[0])).status == 0
    refused = await other.run("devices")
    assert refused.status == 77
    assert "log in again" in refused.err.lower()
    assert (await ann.run("logout", "--everywhere")).status == 0
    assert (await ann.run("history", "bob")).status == 77
    assert not list(ann.home.glob("tokens.json"))


async def test_refusals_and_bad_usage_say_so_in_a_line(ann: Shell, tmp_path: Path) -> None:
    nobody = await ann.run("send", "nobody-at-all", "hi")
    assert (nobody.status, nobody.err) == (1, "duet: nobody is called nobody-at-all\n")
    assert (await ann.run("send", ann.name, "")).status == 1
    assert (await ann.run("send")).status == 2
    taken = await Shell(ann.duet, tmp_path / "x", ann.name).enter("signup")
    assert (taken.status, taken.err.count("\n")) == (1, 1)
    stranger = Shell(ann.duet, tmp_path / "y", "nobody")
    assert (await stranger.run("tail")).status == 77
    assert "duet login NAME" in (await stranger.run("tail")).err


async def test_message_that_cannot_go_out_now_goes_with_the_next_one(
    ann: Shell, bob: Shell
) -> None:
    account = ann.home / "account.json"
    settings = json.loads(account.read_bytes())
    account.write_text(json.dumps({**settings, "gateway_url": "ws://127.0.0.1:1/v1/ws"}))
    queued = await ann.run("send", bob.name, "first", "--timeout", "0.3")
    assert queued.status == 75
    assert "queued" in queued.err
    account.write_text(json.dumps(settings))
    assert (await ann.run("send", bob.name, "second")).status == 0
    history = await bob.run("history", ann.name, "--json")
    assert [json.loads(line)["text"] for line in history.out.splitlines()] == ["first", "second"]


async def test_secrets_are_in_a_file_that_only_the_owner_reads_and_nowhere_else(
    ann: Shell,
) -> None:
    tokens = ann.home / "tokens.json"
    assert stat.S_IMODE(tokens.stat().st_mode) == 0o600
    secret = json.loads(tokens.read_bytes())["refresh_token"]
    others = [path for path in ann.home.rglob("*") if path.is_file() and path != tokens]
    assert all(secret.encode() not in path.read_bytes() for path in others)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_completion_prints_a_script(ann: Shell, shell: str) -> None:
    script = await ann.run("completion", shell)
    assert "_DUET_COMPLETE" in script.out
    completed = await ann.run(COMP_WORDS="duet dev", COMP_CWORD="1", _DUET_COMPLETE="bash_complete")
    assert "devices" in completed.out


async def test_reader_of_a_pipe_that_leaves_ends_the_command_quietly(
    ann: Shell, bob: Shell
) -> None:
    await ann.run("send", bob.name, "-", "--lines", stdin="a line\n" * 40)
    async with bob.started("history", ann.name) as process:
        assert process.stdout is not None
        process.stdout._transport.close()  # type: ignore[attr-defined]
        assert process.stderr is not None
        assert await process.stderr.read() == b""


async def test_text_that_the_terminal_cannot_show_stops_nothing(ann: Shell, bob: Shell) -> None:
    await ann.run("send", bob.name, "a \N{PARTY POPPER}, then more")
    shown = await bob.run("history", ann.name, PYTHONIOENCODING="latin-1")
    assert (shown.status, shown.out[20:]) == (0, f"{ann.name}: a ?, then more\n"), shown.err
    as_json = await bob.run("history", ann.name, "--json", PYTHONIOENCODING="latin-1")
    assert json.loads(as_json.out)["text"] == "a \N{PARTY POPPER}, then more"


async def test_lines_end_where_lines_end(ann: Shell, bob: Shell) -> None:
    text = "one\x0cand\x85the\N{LINE SEPARATOR}same"
    await ann.run("send", bob.name, "-", "--lines", stdin=f"{text}\r\n\nnext\n")
    history = await bob.run("history", ann.name, "--json")
    assert [json.loads(line)["text"] for line in history.out.split("\n") if line] == [text, "next"]


async def test_chat_with_what_is_no_name_leaves_no_file(ann: Shell) -> None:
    files = sorted(ann.home.rglob("*"))
    for name in ("../../../out", "x" * 300):
        refused = await ann.run("chat", name)
        assert (refused.status, refused.err.count("\n")) == (1, 1), refused.err
    assert sorted(ann.home.rglob("*")) == files


async def test_folder_that_cannot_be_used_is_told_in_a_line(ann: Shell, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    shell = Shell(ann.duet, tmp_path / "file", ann.name)
    for refused in (await shell.enter("login"), await shell.run("devices")):
        assert (refused.status, refused.err.count("\n")) == (1, 1), refused.err
        assert "duet: " in refused.err


@pytest.mark.parametrize(
    ("option", "url"),
    [
        ("--gateway-url", "http://127.0.0.1:8765/v1/ws"),
        ("--gateway-url", "127.0.0.1:8765"),
        ("--profile-url", "localhost:8000"),
        ("--profile-url", "http://[::1"),
        ("--profile-url", "http://localhost:port"),
    ],
)
async def test_what_is_no_address_is_refused_at_the_login(
    duet: Duet, tmp_path: Path, option: str, url: str
) -> None:
    ran = await Shell(duet, tmp_path, "ann").run("login", "ann", option, url, stdin=PASSWORD)
    assert ran.status == 2
    assert f"Invalid value for '{option}'" in ran.err


@pytest.mark.parametrize(
    "arguments", [("send", "\udcff", "hi"), ("history", "\udcff"), ("search", "ann \udcff")]
)
async def test_arguments_that_are_no_utf8_are_refused(
    ann: Shell, arguments: tuple[str, ...]
) -> None:
    ran = await ann.run(*arguments)
    assert ran.status == 2
    assert "not valid UTF-8" in ran.err


async def test_interrupt_ends_a_command_that_asks_for_a_password(ann: Shell) -> None:
    keyboard, terminal = os.openpty()
    try:
        async with ann.started("login", ann.name, stdin=terminal) as process:
            assert process.stderr is not None
            await process.stderr.readuntil(b"Password:")
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(10):
                assert b"Traceback" not in await process.stderr.read()
                assert await process.wait() == 1
    finally:
        os.close(keyboard)
        os.close(terminal)
