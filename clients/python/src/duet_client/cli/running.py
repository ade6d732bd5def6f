"""Running a command: its client, its coroutine, and what an error means for the shell."""

import asyncio
import contextlib
import functools
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import click

import duet_client
from duet_client import Account, Client, DuetError
from duet_client.cli.home import Home, Settings
from duet_client.cli.output import say_note
from duet_client.frames import is_encodable

__all__ = ["account_of", "client_of", "command_line"]

EXIT_FAILED = 1
EXIT_TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h
EXIT_LOG_IN = 77  # EX_NOPERM
EXIT_INTERRUPTED = 128 + signal.SIGINT

P = ParamSpec("P")


def command_line(
    work: Callable[Concatenate[Home, P], Coroutine[Any, Any, None]],
) -> Callable[P, None]:
    """Run a command's coroutine; turn what can go wrong into a line and an exit status."""

    @functools.wraps(work)
    def run(*arguments: P.args, **options: P.kwargs) -> None:
        home = click.get_current_context().find_object(Home) or Home()
        _refuse_what_is_no_text((*arguments, *options.values()))
        try:
            asyncio.run(work(home, *arguments, **options))
        except duet_client.LoginRequired as error:
            _leave(f"{error}", EXIT_LOG_IN)
        except (
            duet_client.ServiceUnreachable,
            duet_client.TryAgainLater,
            duet_client.NoAnswer,
        ) as error:
            _leave(f"{error}", EXIT_TRY_AGAIN)
        except DuetError as error:
            _leave(f"{error}", EXIT_FAILED)
        except BrokenPipeError:  # `duet tail | head`: nobody reads any more
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(EXIT_FAILED)
        except OSError as error:  # the folder of the account, most likely
            _leave(f"{error}", EXIT_FAILED)
        except KeyboardInterrupt:
            sys.exit(EXIT_INTERRUPTED)

    return run


def _refuse_what_is_no_text(given: Iterable[object]) -> None:
    """Arguments that are no UTF-8 come as lone surrogates (PEP 383)."""
    for value in given:
        if isinstance(value, str) and not is_encodable(value):
            raise click.UsageError(f"not valid UTF-8: {value!r}")


def _leave(message: str, status: int) -> None:
    say_note(f"duet: {message}")
    sys.exit(status)


@contextlib.asynccontextmanager
async def account_of(home: Home) -> AsyncIterator[tuple[Account, Settings]]:
    settings = home.settings()
    async with Account(settings.profile_url, home.credentials(settings)) as account:
        yield account, settings


@contextlib.asynccontextmanager
async def client_of(
    home: Home, purpose: str, *, timeout_s: float = 10.0, wait: bool = True, forget: bool = False
) -> AsyncIterator[Client]:
    """A client on the state file of its purpose; a short-lived one before it is waited for."""
    settings = home.settings()
    state: Path | str = home.state(settings, purpose)
    if purpose == "ask" or forget:  # nothing to remember
        state = ":memory:"
    loop = asyncio.get_running_loop()
    deadline = loop.time() + (timeout_s if purpose == "send" else 0)
    async with contextlib.AsyncExitStack() as stack:
        while True:
            connecting = duet_client.connect(
                settings.profile_url,
                settings.gateway_url,
                home.credentials(settings),
                state=state,
                connect_timeout_s=timeout_s if wait else 0,
                sends_received=purpose != "ask",
            )
            try:
                client = await stack.enter_async_context(connecting)
                break
            except duet_client.StateInUse:
                if loop.time() >= deadline:
                    raise
                await asyncio.sleep(0.05)
        yield client
