"""What people see of events and receipts, as wire bytes."""

from shared.ids import UserId
from ws_gateway.conversations import (
    SENT,
    Appended,
    Event,
    EventKind,
    Message,
    PresenceNotice,
    Receipt,
    SettingChanged,
    TypingNotice,
)
from ws_gateway.protocol import answers, codec, frames
from ws_gateway.protocol.cursor import Cursors
from ws_gateway.protocol.timestamps import timestamp
from ws_gateway.protocol.wire import text_frame

__all__ = ["TYPING_EXPIRES_MS", "Rendering", "ack_frame", "message_item"]

TYPING_EXPIRES_MS = 6000


class Rendering:
    """Turns notices into frames for one side: `viewer` is who the frame is for."""

    def __init__(self, cursors: Cursors) -> None:
        self._cursors = cursors

    def event(self, event: Event, viewer: UserId) -> bytes:
        """Render an event; its sender's own devices get a message's client id as well."""
        message, cursor = event.message, self._cursors.encode(event.position_for(viewer))
        frame: frames.ServerFrame
        if event.kind is SENT:
            frame = _message(message, cursor, with_id=viewer == message.sender)
        else:
            frame = _revision(event, cursor)
        return text_frame(codec.encode(frame))

    def receipt(self, receipt: Receipt, viewer: UserId) -> bytes:
        """Render a receipt; the peer sees no `read` that its owner keeps private."""
        shown = receipt.shows_read or viewer == receipt.user
        return text_frame(
            codec.encode(
                frames.ReceiptFrame(
                    conversation=receipt.conversation,
                    user=receipt.user,
                    received=receipt.received,
                    read=receipt.read if shown else None,
                )
            )
        )

    def typing(self, notice: TypingNotice) -> bytes:
        """Render that somebody types."""
        return text_frame(
            codec.encode(frames.TypingFrame(notice.user, notice.active, TYPING_EXPIRES_MS))
        )

    def presence(self, notice: PresenceNotice) -> bytes:
        """Render that somebody came or went."""
        seen = notice.last_seen_ms
        return text_frame(
            codec.encode(
                frames.PresenceFrame(
                    notice.user, notice.online, None if seen is None else timestamp(seen)
                )
            )
        )

    def changed(self, notice: SettingChanged) -> bytes:
        """Render that somebody has set something on another of their connections."""
        return text_frame(codec.encode(frames.Changed(notice.what)))


def message_item(message: Message) -> answers.MessageItem:
    """Render a message within an answer."""
    return answers.MessageItem(
        conversation=message.conversation,
        seq=message.seq,
        from_=message.sender,
        text=message.text,
        sent_at=timestamp(message.sent_at_ms),
        revision=message.revision,
        edited_at=_edited_at(message),
        deleted=message.deleted,
    )


def _message(message: Message, cursor: str, *, with_id: bool) -> frames.MessageFrame:
    client_id = message.client_id if with_id else None
    if not message.revision:
        return frames.MessageFrame(
            message.conversation,
            message.seq,
            message.sender,
            message.recipient,
            message.text,
            timestamp(message.sent_at_ms),
            cursor,
            client_id,
        )
    return frames.MessageFrame(
        conversation=message.conversation,
        seq=message.seq,
        from_=message.sender,
        to=message.recipient,
        text=message.text,
        sent_at=timestamp(message.sent_at_ms),
        cursor=cursor,
        id=client_id,
        revision=message.revision,
        edited_at=_edited_at(message),
        deleted=message.deleted,
    )


def _revision(event: Event, cursor: str) -> frames.ServerFrame:
    message = event.message
    if event.kind is EventKind.ERASED:
        return frames.Erased(message.conversation, message.sender, cursor)
    changed_at = timestamp(message.changed_at_ms or 0)
    if event.kind is EventKind.EDITED and not message.deleted:
        return frames.Edited(
            conversation=message.conversation,
            seq=message.seq,
            from_=message.sender,
            text=message.text,
            revision=message.revision,
            edited_at=changed_at,
            cursor=cursor,
        )
    return frames.Deleted(
        conversation=message.conversation,
        seq=message.seq,
        from_=message.sender,
        revision=message.revision,
        deleted_at=changed_at,
        cursor=cursor,
    )


def _edited_at(message: Message) -> str | None:
    if message.changed_at_ms is None or message.deleted:
        return None
    return timestamp(message.changed_at_ms)


def ack_frame(request_id: str | None, appended: Appended) -> frames.Ack:
    """Render the answer to a `send`, `edit` or `delete`."""
    message = appended.event.message
    return frames.Ack(
        id=request_id or "",
        conversation=message.conversation,
        seq=message.seq,
        sent_at=timestamp(message.sent_at_ms),
        duplicate=appended.duplicate,
        revision=message.revision,
    )
