"""What the command line prints: readable for people, plain for pipes, JSON where asked."""

import unicodedata
from datetime import datetime

import click
import msgspec

from duet_client.answers import Message
from duet_client.frames import NewMessage

__all__ = ["printable", "say_json", "say_message", "say_note"]

_KEPT = "\n\t"
_REORDERING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def printable(text: str) -> str:
    """Make somebody else's text harmless: it could hold commands for the terminal (ECMA-48)."""
    return "".join(
        character
        if character in _KEPT
        or (unicodedata.category(character) != "Cc" and character not in _REORDERING)
        else "\N{REPLACEMENT CHARACTER}"
        for character in text
    )


def say_message(sender: str, message: Message | NewMessage) -> None:
    """Print a message on its line; further lines of its text are indented."""
    text = "(deleted)" if message.deleted else printable(message.text)
    edited = " (edited)" if message.edited_at is not None else ""
    lines = text.replace("\n", "\n    ")
    when = click.style(_local(message.sent_at), dim=True)
    click.echo(f"{when} {click.style(printable(sender), bold=True)}: {lines}{edited}")


def say_json(value: object) -> None:
    """Print one value as a line of JSON: in UTF-8, whatever the terminal has."""
    click.echo(msgspec.json.encode(value))


def say_note(text: str) -> None:
    """Tell a person something that is no result: on standard error, so that pipes stay clean."""
    click.echo(printable(text), err=True)


def _local(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")
