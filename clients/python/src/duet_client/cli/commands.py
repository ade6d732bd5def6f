"""The commands of `duet`. Exit status: 0 done; 1 refused or failed; 2 wrong usage; 75 not now, try
again (queued messages go out with the next `duet send`); 77 log in first; 130 interrupted.
"""

import asyncio
import contextlib
import signal
import socket
import sys
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import click
from click.shell_completion import get_completion_class

import duet_client
from duet_client import NewMessage
from duet_client.cli.home import Home, Store
from duet_client.cli.output import printable, say_json, say_message, say_note
from duet_client.cli.running import account_of, client_of, command_line
from duet_client.credentials import KeyringCredentials
from duet_client.link import DEFAULT_GATEWAY_URL
from duet_client.profile_api import DEFAULT_PROFILE_URL

__all__ = ["duet"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="duet-client", message="%(version)s")
@click.option(
    "--home", type=click.Path(path_type=Path), help="Folder of the account; or DUET_HOME."
)
@click.pass_context
def duet(context: click.Context, home: Path | None) -> None:
    """Chat from the terminal. What you send arrives once and in order, whatever fails."""
    context.obj = Home(home)


def _beginning(*schemes: str) -> Callable[[click.Context, click.Parameter, str], str]:
    """Refuse at the login what each later command would fail at."""

    def check(_context: click.Context, _parameter: click.Parameter, url: str) -> str:
        with contextlib.suppress(ValueError):  # brackets or a port that are none
            parts = urllib.parse.urlsplit(url)
            if parts.scheme in schemes and parts.hostname and parts.port != 0:
                return url
        raise click.BadParameter(f"it is to be {schemes[0]}://… or {schemes[1]}://…")

    return check


def _of_servers(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option(
            "--profile-url",
            default=DEFAULT_PROFILE_URL,
            show_default=True,
            callback=_beginning("http", "https"),
        ),
        click.option(
            "--gateway-url",
            default=DEFAULT_GATEWAY_URL,
            show_default=True,
            callback=_beginning("ws", "wss"),
        ),
        click.option("--device-name", default=socket.gethostname, help="For the list of devices."),
        click.option(
            "--store",
            type=click.Choice(["keyring", "file"]),
            help="Where tokens are kept; default: the keyring if there is one.",
        ),
    ):
        command = option(command)
    return command


_as_json = click.option("--json", "as_json", is_flag=True, help="Lines of JSON.")


@duet.command()
@click.argument("username")
@_of_servers
@command_line
async def signup(
    home: Home,
    username: str,
    *,
    profile_url: str,
    gateway_url: str,
    device_name: str,
    store: Store | None,
) -> None:
    """Create an account and log in. The password is asked for, or read from standard input."""
    password = _password(confirm=True)
    tokens = await duet_client.sign_up(profile_url, username, password, device_name=device_name)
    home.log_in(tokens, profile_url, gateway_url, store or _best_store())
    say_note(f"Welcome, {tokens.username}. `duet chat NAME` begins a conversation.")


@duet.command()
@click.argument("username")
@_of_servers
@command_line
async def login(
    home: Home,
    username: str,
    *,
    profile_url: str,
    gateway_url: str,
    device_name: str,
    store: Store | None,
) -> None:
    """Log in on this device. The password is asked for, or read from standard input."""
    password = _password()
    tokens = await duet_client.log_in(profile_url, username, password, device_name=device_name)
    home.log_in(tokens, profile_url, gateway_url, store or _best_store())
    say_note(f"Logged in as {tokens.username}.")


@duet.command()
@click.option("--everywhere", is_flag=True, help="On every device.")
@click.option("--device", metavar="ID", help="Another device, from `duet devices`.")
@command_line
async def logout(home: Home, everywhere: bool, device: str | None) -> None:
    """Log out this device, another one, or all of them."""
    async with account_of(home) as (account, _):
        if device is not None:
            await account.log_out_device(device)
            return
        with contextlib.suppress(duet_client.LoginRequired):
            await (account.log_out_everywhere() if everywhere else account.log_out())
    home.log_out()


@duet.command()
@_as_json
@command_line
async def devices(home: Home, as_json: bool) -> None:
    """List the devices that are logged in; * is this one."""
    async with account_of(home) as (account, _):
        for device in await account.devices():
            if as_json:
                say_json(device)
            else:
                mark = "*" if device.current else " "
                name = printable(device.device_name or device.user_agent or "unnamed")
                click.echo(f"{mark} {device.id}  {device.refreshed_at:%Y-%m-%d %H:%M}  {name}")


@duet.command()
@click.argument("who")
@click.argument("text")
@click.option("--lines", is_flag=True, help="With -: each line is a message of its own.")
@click.option("--timeout", "timeout_s", default=30.0, show_default=True, help="Seconds to wait.")
@_as_json
@command_line
async def send(
    home: Home, who: str, text: str, *, lines: bool, timeout_s: float, as_json: bool
) -> None:
    """Send TEXT to WHO, or what standard input holds when TEXT is -.

    Ends when the gateway has it. When that cannot be reached (status 75), the message is queued and
    goes out with the next `duet send`.
    """
    texts = _texts(text, lines)
    async with client_of(home, "send", timeout_s=timeout_s, wait=False) as me:
        outgoing = [await me.send(who, each) for each in texts]
        try:
            async with asyncio.timeout(timeout_s):
                for each in outgoing:
                    ack = await each.acknowledged()
                    if as_json:
                        say_json(ack)
        except TimeoutError:
            raise duet_client.NoAnswer(
                f"not sent yet: {len(me.queued)} queued, to go out with the next `duet send`"
            ) from None


@duet.command()
@click.argument("who", required=False)
@click.option("--new", is_flag=True, help="Only what comes from now on, not what was missed.")
@click.option("--count", type=click.IntRange(1), help="End after so many messages.")
@_as_json
@command_line
async def tail(home: Home, who: str | None, new: bool, count: int | None, as_json: bool) -> None:
    """Print messages as they come, beginning where the last `duet tail` ended.

    With WHO, only the conversation with that person.
    """
    purpose = "tail-new" if new else "tail"
    async with client_of(home, purpose, forget=new) as me:
        peer = None if who is None else await me.id_of(who)
        async for event in me.events():
            if isinstance(event, duet_client.ConnectionLost):
                say_note(f"no connection: {event.reason}")
            elif isinstance(event, duet_client.ConnectionRestored):
                say_note(f"listening as {me.username}")
            if not isinstance(event, NewMessage):
                continue
            if peer is not None and peer not in (event.sender, event.recipient):
                continue
            if as_json:
                say_json(event)
            else:
                say_message(await me.name_of(event.sender) or event.sender, event)
            sys.stdout.flush()
            count = None if count is None else count - 1
            if count == 0:
                await me.handled(event)
                return


@duet.command()
@click.argument("who")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1))
@_as_json
@command_line
async def history(home: Home, who: str, limit: int, as_json: bool) -> None:
    """Print the last messages with WHO, the oldest first."""
    async with client_of(home, "ask") as me:
        messages: list[duet_client.Message] = []
        before: int | None = None
        while len(messages) < limit:
            page = await me.history(who, before=before, limit=min(200, limit - len(messages)))
            messages[:0] = page.messages
            if not page.more or not page.messages:
                break
            before = page.messages[0].seq
        for message in messages:
            if as_json:
                say_json(message)
            else:
                say_message(me.username if message.sender == me.user_id else who, message)


@duet.command()
@click.argument("query")
@click.option("--with", "who", help="Only in the conversation with this person.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 200))
@_as_json
@command_line
async def search(home: Home, query: str, who: str | None, limit: int, as_json: bool) -> None:
    """Find messages that hold every word of QUERY, the best first."""
    async with client_of(home, "ask") as me:
        found = await me.search(query, who=who, limit=limit)
        for hit in found.items:
            if as_json:
                say_json(hit)
            else:
                name = await me.name_of(hit.message.sender) or hit.message.sender
                say_message(name, hit.message)
        if not found.complete:
            say_note("The newest messages are still being indexed.")


@duet.command()
@click.option("--output", "-o", type=click.File("w", encoding="utf-8", atomic=True), default="-")
@command_line
async def export(home: Home, output: TextIO) -> None:
    """Write all of your conversations as JSON Lines."""
    async with client_of(home, "ask") as me:
        async for line in me.export():
            output.write(line + "\n")


@duet.command()
@click.argument("who")
@command_line
async def chat(home: Home, who: str) -> None:
    """Talk with WHO, full screen."""
    from duet_client.cli.chat import Chat  # noqa: PLC0415 - Textual takes a while to load

    async with account_of(home) as (account, _):
        peer = (await account.user(who)).username  # before it names a file
    async with client_of(home, f"chat-{peer.lower()}", wait=False) as me:
        await Chat(me, peer).run_async()


@duet.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes SHELL complete: `eval "$(duet completion bash)"`."""
    kind = get_completion_class(shell)
    if kind is None:
        raise AssertionError(shell)
    click.echo(kind(duet, {}, "duet", "_DUET_COMPLETE").source())


def _texts(text: str, lines: bool) -> list[str]:
    if text != "-":
        return [text]
    with _interruptible():
        given = sys.stdin.read()
    if not lines:
        return [given.removesuffix("\n")]
    lines_given = (line.removesuffix("\r") for line in given.split("\n"))
    return [line for line in lines_given if line]  # `splitlines` would break at U+2028, too


def _password(*, confirm: bool = False) -> str:
    """Ask for a password, or take the first line of standard input when that is no terminal."""
    with _interruptible():
        if sys.stdin.isatty():
            answer: str = click.prompt(
                "Password", hide_input=True, confirmation_prompt=confirm, err=True
            )
            return answer
        return sys.stdin.readline().rstrip("\r\n")


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end what waits for a person: asyncio's handler waits for the loop, which waits."""
    of_asyncio = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, of_asyncio)


def _best_store() -> Store:
    return "keyring" if KeyringCredentials.works() else "file"
