"""Answers what people ask about their conversations, and keeps what they want of others.

Each answer is one frame, but for the export, which is many. Nothing here changes a conversation.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable

import msgspec

from shared.ids import ConnectionId, ConversationId, UserId, conversation_id
from ws_gateway.conversations import Message, SettingChanged
from ws_gateway.delivery.rendering import message_item
from ws_gateway.ports import (
    ConversationSummary,
    MessageArchive,
    MessageBus,
    PeopleStore,
    Preferences,
    ProfileServiceUnavailable,
    StoreUnavailable,
    UserDirectory,
)
from ws_gateway.presence import Presence
from ws_gateway.protocol import answers, frames, requests
from ws_gateway.protocol.actions import Enquiry, error_frame
from ws_gateway.protocol.errors import ErrorCode
from ws_gateway.protocol.timestamps import timestamp

__all__ = ["Enquiries"]

_MAX_PAGE_BYTES = 256 * 1024
"""A page of long texts is cut here and says `more`: a frame must fit a client's default limit."""
_EXPORT_PAGE = 200
_RETRY_AFTER_MS = 1000


class Enquiries:
    """For one event loop; any number of callers."""

    def __init__(
        self,
        archive: MessageArchive,
        people: PeopleStore,
        directory: UserDirectory,
        presence: Presence,
        bus: MessageBus,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._archive = archive
        self._people = people
        self._directory = directory
        self._presence = presence
        self._bus = bus
        self._now = now
        self.waiting = 0
        """How many wait for their answer now; exports, which go on for long, do not count."""

    async def answer(
        self, user_id: UserId, enquiry: Enquiry, origin: ConnectionId
    ) -> AsyncIterator[frames.ServerFrame]:
        """Yield the answer of one enquiry: a frame, or the frames of an export, or an error.

        `origin` is the connection that asks: what it sets, the person's other ones are told.
        """
        try:
            if isinstance(enquiry, requests.Export):
                async for frame in self._export(user_id, enquiry):
                    yield frame
                return
            self.waiting += 1
            try:
                frame = await self._answer(user_id, enquiry, origin)
            finally:
                self.waiting -= 1
            yield frame
        except StoreUnavailable:
            yield error_frame(
                ErrorCode.STORE_UNAVAILABLE,
                request_id=enquiry.id,
                retry_after_ms=_RETRY_AFTER_MS,
            )

    async def _answer(
        self, user_id: UserId, enquiry: "Enquiry", origin: ConnectionId
    ) -> frames.ServerFrame:
        match enquiry:
            case requests.History():
                return await self._history(user_id, enquiry)
            case requests.Conversations():
                return await self._conversations(user_id, enquiry)
            case requests.Search():
                return await self._search(user_id, enquiry)
            case requests.Trace():
                return await self._trace(user_id, enquiry)
            case requests.Block() | requests.Unblock():
                return await self._block(user_id, enquiry, origin)
            case requests.Blocks(request_id):
                return answers.BlockList(request_id, await self._people.blocks(user_id))
            case requests.Preferences():
                return await self._preferences(user_id, enquiry, origin)
            case requests.Export():
                raise AssertionError("an export has many frames")

    async def _history(self, user_id: UserId, asked: requests.History) -> frames.ServerFrame:
        if asked.before is not None and asked.after is not None:
            return error_frame(
                ErrorCode.INVALID_FRAME,
                request_id=asked.id,
                detail="give `before` or `after`, not both",
            )
        peer_id = UserId(asked.with_)
        limit = asked.limit or requests.DEFAULT_LIMIT
        page = await self._archive.history(
            user_id, peer_id, before=asked.before, after=asked.after, limit=limit
        )
        newest_first = asked.after is None
        kept = _fitting(page.messages[::-1] if newest_first else page.messages)
        return answers.HistoryPage(
            id=asked.id,
            conversation=conversation_id(user_id, peer_id),
            messages=[message_item(m) for m in (reversed(kept) if newest_first else kept)],
            more=page.more or len(kept) < len(page.messages),
        )

    async def _conversations(
        self, user_id: UserId, asked: requests.Conversations
    ) -> frames.ServerFrame:
        before = _number(asked.after)
        if asked.after is not None and before is None:
            return error_frame(ErrorCode.INVALID_CURSOR, request_id=asked.id)
        limit = asked.limit or requests.DEFAULT_LIMIT
        summaries = await self._archive.conversations(user_id, before, limit + 1)
        more = len(summaries) > limit
        summaries = summaries[:limit]
        kept = _fitting([summary.last_message for summary in summaries])
        more, summaries = more or len(kept) < len(summaries), summaries[: len(kept)]
        names = await asyncio.gather(*(self._username(s.peer) for s in summaries))
        online = await self._presence.online([s.peer for s in summaries], user_id)
        return answers.ConversationList(
            id=asked.id,
            items=[
                _item(summary, name, online=summary.peer in online)
                for summary, name in zip(summaries, names, strict=True)
            ],
            next=str(summaries[-1].position) if more else None,
        )

    async def _search(self, user_id: UserId, asked: requests.Search) -> frames.ServerFrame:
        upto, offset = None, 0
        if asked.after is not None:
            first, _, second = asked.after.partition(".")
            upto, skipped = _number(first), _number(second)
            if upto is None or skipped is None:
                return error_frame(ErrorCode.INVALID_CURSOR, request_id=asked.id)
            offset = skipped
        peer_id = None if asked.with_ is None else UserId(asked.with_)
        limit = asked.limit or requests.DEFAULT_SEARCH_LIMIT
        page = await self._archive.search(
            user_id, asked.query, peer_id, upto=upto, offset=offset, limit=limit
        )
        kept = _fitting([hit.message for hit in page.hits])
        more = page.more or len(kept) < len(page.hits)
        return answers.SearchResults(
            id=asked.id,
            items=[
                answers.SearchItem(
                    message=message_item(hit.message),
                    peer=_other(hit.message, user_id),
                    snippet=hit.snippet,
                )
                for hit in page.hits[: len(kept)]
            ],
            complete=page.complete,
            next=f"{page.upto}.{offset + len(kept)}" if more else None,
        )

    async def _trace(self, user_id: UserId, asked: requests.Trace) -> frames.ServerFrame:
        trace = await self._archive.trace(user_id, ConversationId(asked.conversation), asked.seq)
        if trace is None:
            return error_frame(ErrorCode.MESSAGE_NOT_FOUND, request_id=asked.id)
        return answers.TraceResult(
            id=asked.id,
            conversation=trace.message.conversation,
            seq=trace.message.seq,
            stored_at=timestamp(trace.message.sent_at_ms),
            delivered_to_connections=trace.delivered_connections,
            delivered_at=_timestamp(trace.delivered_at_ms),
            received_at=_timestamp(trace.received_at_ms),
            read_at=_timestamp(trace.read_at_ms),
        )

    async def _block(
        self, user_id: UserId, asked: requests.Block | requests.Unblock, origin: ConnectionId
    ) -> frames.ServerFrame:
        other = UserId(asked.user)
        if other == user_id:
            return error_frame(ErrorCode.RECIPIENT_IS_SENDER, request_id=asked.id)
        if isinstance(asked, requests.Block):
            try:
                exists = await self._directory.username(other) is not None
            except ProfileServiceUnavailable:
                return error_frame(
                    ErrorCode.VERIFICATION_UNAVAILABLE,
                    request_id=asked.id,
                    retry_after_ms=_RETRY_AFTER_MS,
                )
            if not exists:
                return error_frame(ErrorCode.RECIPIENT_NOT_FOUND, request_id=asked.id)
            await self._people.block(user_id, other, int(self._now() * 1000))
        else:
            await self._people.unblock(user_id, other)
        self._presence.reconsider(user_id, other)
        self._bus.publish([SettingChanged(user_id, "blocks", origin)])
        return frames.Done(asked.id)

    async def _preferences(
        self, user_id: UserId, asked: requests.Preferences, origin: ConnectionId
    ) -> frames.ServerFrame:
        now = await self._people.preferences(user_id)
        wanted = Preferences(
            now.shares_reads if asked.share_reads is None else asked.share_reads,
            now.shares_presence if asked.share_presence is None else asked.share_presence,
        )
        if wanted != now:
            now = await self._people.set_preferences(
                user_id, shares_reads=asked.share_reads, shares_presence=asked.share_presence
            )
            self._presence.reconsider(user_id)
            self._bus.publish([SettingChanged(user_id, "preferences", origin)])
        return answers.PreferenceValues(asked.id, now.shares_reads, now.shares_presence)

    async def _export(
        self, user_id: UserId, asked: requests.Export
    ) -> AsyncIterator[frames.ServerFrame]:
        messages = done = 0
        while peers := await self._archive.peers(user_id, done, _EXPORT_PAGE):
            done = peers[-1][0]
            for _, peer in peers:
                after = 0
                head = {
                    "conversation": conversation_id(user_id, peer),
                    "with": peer,
                    "name": await self._username(peer),
                }
                yield answers.ExportChunk(asked.id, _lines([head]))
                while True:
                    page = await self._archive.history(
                        user_id, peer, before=None, after=after, limit=_EXPORT_PAGE
                    )
                    kept = _fitting(page.messages)
                    if kept:
                        yield answers.ExportChunk(asked.id, _lines(map(message_item, kept)))
                        after = kept[-1].seq
                        messages += len(kept)
                    if not page.more and len(kept) == len(page.messages):
                        break
        yield answers.Exported(asked.id, messages)

    async def _username(self, user_id: UserId) -> str | None:
        try:
            return await self._directory.username(user_id)
        except ProfileServiceUnavailable:
            return None


def _item(
    summary: ConversationSummary, username: str | None, *, online: bool
) -> answers.ConversationItem:
    seen = summary.peer_last_seen_ms
    return answers.ConversationItem(
        conversation=summary.conversation,
        peer=answers.Peer(
            id=summary.peer,
            username=username,
            online=online,
            last_seen=None if seen is None else timestamp(seen),
        ),
        last_message=message_item(summary.last_message),
        unread=summary.unread,
        received=summary.received,
        read=summary.read,
        peer_received=summary.peer_received,
        peer_read=summary.peer_read,
    )


def _fitting(messages: list[Message]) -> list[Message]:
    """Return the first messages that fit one frame; at least one, when there is one."""
    size = 0
    for count, message in enumerate(messages):
        size += 300 + len(msgspec.json.encode(message.text))  # escapes are longer than characters
        if count and size > _MAX_PAGE_BYTES:
            return messages[:count]
    return messages


def _lines(items: Iterable[object]) -> str:
    return msgspec.json.Encoder().encode_lines(items).decode()


def _number(cursor: str | None) -> int | None:
    if cursor is None or not (cursor.isascii() and cursor.isdigit()) or len(cursor) > 18:
        return None
    return int(cursor)


def _other(message: Message, user_id: UserId) -> UserId:
    return message.recipient if message.sender == user_id else message.sender


def _timestamp(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else timestamp(milliseconds)
