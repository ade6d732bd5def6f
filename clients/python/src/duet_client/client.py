"""A connected person: what an application talks to."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator
from typing import Any, TypeVar

from duet_client.account import Account
from duet_client.answers import (
    BlockList,
    ConversationList,
    HistoryPage,
    Preferences,
    SearchResults,
    Trace,
)
from duet_client.credentials import Tokens
from duet_client.engine import Engine
from duet_client.errors import InvalidRequest, NoAnswer, ProtocolFault
from duet_client.events import Event
from duet_client.frames import Receipt, is_encodable
from duet_client.inbox import EventStream
from duet_client.outgoing import Outgoing
from duet_client.questions import Question
from duet_client.state import Queued

__all__ = ["Client"]

T = TypeVar("T")

MAX_TEXT_CHARACTERS = 4000
_USER_ID = re.compile("u_[a-z2-7]{26}")
_MESSAGE_ID = re.compile("[ -~]{1,64}")
_TYPING_INTERVAL_S = 1.0


class Client:
    """One person's connection, kept up. Made by `connect`; for one event loop.

    People are named by username or user id, whichever you have. Requests (`history`, `search` …)
    survive a lost connection: they are asked again, and raise `NoAnswer` when `answer_timeout_s`
    has passed, `RequestRefused` when the gateway says no, and `ConnectionEnded` or `LoginRequired`
    when this client is done. Cancelling any call is safe; nothing that was queued is taken back.
    """

    def __init__(
        self, engine: Engine, account: Account, tokens: Tokens, answer_timeout_s: float
    ) -> None:
        self.account = account
        """The profile service: devices, profiles, password, log out."""
        self.user_id = tokens.user_id
        self.username = tokens.username
        self._engine = engine
        self._answer_timeout_s = answer_timeout_s
        self._typed_at: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<Client {self.username} {'live' if self.is_connected else 'not connected'}>"

    @property
    def is_connected(self) -> bool:
        """Whether there is a verified connection just now."""
        return self._engine.link.is_live

    @property
    def queued(self) -> list[Queued]:
        """Messages that are not acknowledged yet, the oldest first."""
        return self._engine.outbox.queued

    async def wait_connected(self) -> None:
        """Return when there is a verified connection; tried at once, not after the next wait.

        Raises:
            LoginRequired, ConnectionEnded: there will be none.
        """
        self._engine.link.retry_now()
        await self._engine.settled.wait()
        if self._engine.ended is not None:
            raise self._engine.ended

    def events(self) -> EventStream:
        """Iterate over what happens, in order, without end: `async for event in me.events()`.

        An event is *handled* when the loop comes back for the next one. Handled events are not
        delivered again: their place is stored at once when no further event waits, and with the
        next 63 at most when they do; so an event comes exactly once in normal operation, and at
        least once when the process is killed. Leaving the loop with `break` or an exception leaves
        the last event unhandled: it comes again from the next `events()`, unless you gave it to
        `handled`.

        One loop at a time. Ends when the client is closed.

        Raises:
            LoginRequired, ConnectionEnded: after the last event, when the client had to stop.
        """
        return EventStream(self._engine.inbox)

    async def handled(self, event: Event) -> None:
        """Store that `event`, the one handed out last, need not come again."""
        await self._engine.inbox.handled(event)

    async def send(self, to: str, text: str, *, message_id: str | None = None) -> Outgoing:
        """Queue a message. When this returns, it is on this machine's disk and will be sent once.

        Messages to one person arrive in the order of sending. Connected or not makes no difference.
        `await outgoing.acknowledged()` waits for the gateway; without it, `MessageSent` or
        `SendFailed` tells. Cancelled, the message may have been queued all the same.

        An application that must not send twice though it crashes itself gives a `message_id` that
        it has stored: 1 to 64 printable ASCII characters, unique among all devices of the user for
        ever (a UUID). Repeating a call with it is safe for ever.

        Raises:
            InvalidRequest: the text is empty, too long, or cannot be stored; or so is the id.
            Conflict: something else is queued under `message_id`.
            OutboxFull, StateError, ClientClosed: nothing was queued.
        """
        fields: dict[str, str | int] = {"text": _storable(text)}
        if message_id is not None and not _MESSAGE_ID.fullmatch(message_id):
            raise InvalidRequest("invalid_id", "an id has 1 to 64 printable ASCII characters")
        outbox = self._engine.outbox
        if _USER_ID.fullmatch(to):
            return await outbox.submit("send", to, to, fields, entry_id=message_id)
        name = to.lower()
        return await outbox.submit(
            "send", name, outbox.names.get(name), fields, entry_id=message_id
        )

    async def edit(self, conversation: str, seq: int, text: str) -> Outgoing:
        """Queue a new text for an own message; like `send` otherwise."""
        fields: dict[str, str | int] = {
            "conversation": conversation,
            "seq": seq,
            "text": _storable(text),
        }
        return await self._engine.outbox.submit("edit", conversation, conversation, fields)

    async def delete(self, conversation: str, seq: int) -> Outgoing:
        """Queue the deletion of an own message; like `send` otherwise."""
        fields: dict[str, str | int] = {"conversation": conversation, "seq": seq}
        return await self._engine.outbox.submit("delete", conversation, conversation, fields)

    async def history(
        self, who: str, *, before: int | None = None, after: int | None = None, limit: int = 50
    ) -> HistoryPage:
        """Read messages with one person, oldest first: the last before `before`, or the first after
        `after`, or the newest. At most 200; `more` says whether there are others beyond.
        """
        fields = {"with": await self.id_of(who), "before": before, "after": after, "limit": limit}
        return await self._ask(HistoryPage, "history", **fields)

    async def conversations(self, *, after: str | None = None, limit: int = 50) -> ConversationList:
        """Read the conversations, the newest first; `after` is `next` of the page before."""
        page = await self._ask(ConversationList, "conversations", after=after, limit=limit)
        for item in page.items:
            if item.peer.username is not None:
                self._engine.outbox.names.setdefault(item.peer.username.lower(), item.peer.id)
        return page

    async def search(
        self, query: str, *, who: str | None = None, after: str | None = None, limit: int = 20
    ) -> SearchResults:
        """Find messages that hold every word of `query`, the best first."""
        peer = None if who is None else await self.id_of(who)
        fields = {"query": query, "with": peer, "after": after, "limit": limit}
        return await self._ask(SearchResults, "search", **fields)

    async def trace(self, conversation: str, seq: int) -> Trace:
        """Ask what happened to an own message: stored, delivered, received, read."""
        return await self._ask(Trace, "trace", conversation=conversation, seq=seq)

    async def mark_received(self, conversation: str, seq: int) -> Receipt:
        """Say that this device has everything up to `seq`: done by itself for handled messages."""
        return await self._ask(Receipt, "received", conversation=conversation, seq=seq)

    async def mark_read(self, conversation: str, seq: int) -> Receipt:
        """Say that the person has seen everything up to `seq`; badges clear on other devices."""
        return await self._ask(Receipt, "read", conversation=conversation, seq=seq)

    async def typing(self, to: str, *, active: bool = True) -> None:
        """Say that the person types, or has stopped. Call it at each key: at most one a second goes
        out, and none without a connection.
        """
        now = time.monotonic()
        last = self._typed_at.get(to, float("-inf"))
        if not self.is_connected or (active and now - last < _TYPING_INTERVAL_S):
            return
        self._typed_at[to] = now if active else float("-inf")
        self._engine.tell("typing", {"to": await self.id_of(to), "active": active})

    async def block(self, who: str) -> None:
        """Take nothing from this person any more."""
        await self._answered(self._engine.ask("block", {"user": await self.id_of(who)}))

    async def unblock(self, who: str) -> None:
        """Take messages from this person again."""
        await self._answered(self._engine.ask("unblock", {"user": await self.id_of(who)}))

    async def blocks(self) -> list[str]:
        """Return the user ids of whom you block, the latest first."""
        return (await self._ask(BlockList, "blocks")).users

    async def preferences(
        self, *, share_reads: bool | None = None, share_presence: bool | None = None
    ) -> Preferences:
        """Set what others may see of you (None leaves it), and return how it is now."""
        fields = {"share_reads": share_reads, "share_presence": share_presence}
        return await self._ask(Preferences, "preferences", **fields)

    async def export(self) -> AsyncIterator[str]:
        """Yield all conversations as lines of JSON: a head for each, then its messages.

        Raises:
            NoAnswer: the connection broke in between; ask again from the start.
        """
        question = self._engine.ask("export", {}, in_parts=True)
        parts = question.parts
        if parts is None:
            raise AssertionError("an export comes in parts")
        try:
            while True:
                try:
                    async with asyncio.timeout(self._answer_timeout_s):
                        part = await parts.get()
                except TimeoutError:
                    raise NoAnswer("no more of the export came in time") from None
                if part is None:
                    question.answer.result()
                    return
                for line in part.lines.split("\n"):  # not splitlines: texts hold its separators
                    if line:
                        yield line
        finally:
            self._engine.questions.withdraw(question.id)

    async def id_of(self, who: str) -> str:
        """Return the user id behind a name (or the id that was given).

        Raises:
            UserNotFound: nobody has this name.
            ServiceUnreachable, TryAgainLater: not known yet, and it cannot be asked now.
        """
        return who if _USER_ID.fullmatch(who) else await self._engine.outbox.learn(who)

    async def name_of(self, user_id: str) -> str | None:
        """Return the name of somebody you have a conversation with, if it is known or can be."""
        if user_id == self.user_id:
            return self.username
        name = self._known_name(user_id)
        if name is None and self.is_connected:
            with contextlib.suppress(NoAnswer):
                await self.conversations()
            name = self._known_name(user_id)
        return name

    def _known_name(self, user_id: str) -> str | None:
        names = self._engine.outbox.names
        return next((name for name, known in names.items() if known == user_id), None)

    async def _ask(self, kind: type[T], request: str, **fields: Any) -> T:
        answer = await self._answered(self._engine.ask(request, fields))
        if not isinstance(answer, kind):
            raise ProtocolFault(f"{request} was answered with {type(answer).__name__}")
        return answer

    async def _answered(self, question: Question) -> object:
        try:
            async with asyncio.timeout(self._answer_timeout_s):
                return await asyncio.shield(question.answer)
        except TimeoutError:
            raise NoAnswer(f"no answer within {self._answer_timeout_s:g} s") from None
        finally:
            self._engine.questions.withdraw(question.id)


def _storable(text: str) -> str:
    """Refuse here what the gateway would refuse: a queued message must not be a hopeless one."""
    if not 0 < len(text) <= MAX_TEXT_CHARACTERS:
        raise InvalidRequest("invalid_text", f"a text has 1 to {MAX_TEXT_CHARACTERS} characters")
    if "\x00" in text or not is_encodable(text):
        raise InvalidRequest("invalid_text", "a text holds no U+0000 and no lone surrogates")
    return text
