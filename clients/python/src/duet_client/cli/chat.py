"""The full-screen chat: messages with ticks, typing, presence, and a banner when offline."""

import contextlib
from typing import ClassVar

from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.events import Paste
from textual.timer import Timer
from textual.widgets import Input, Static

from duet_client.cli.conversation import Conversation, Line, Tick
from duet_client.cli.output import printable
from duet_client.client import Client
from duet_client.errors import ConnectionEnded, DuetError, LoginRequired
from duet_client.events import ConnectionLost, ConnectionRestored, MessageSent, SendFailed
from duet_client.frames import Presence, ResyncNeeded, Typing

__all__ = ["Chat"]

_PAGE = 50
_TICKS = {
    Tick.NONE: ("", ""),
    Tick.QUEUED: (" …", "dim"),
    Tick.STORED: (" ✓", "dim"),
    Tick.RECEIVED: (" ✓✓", "dim"),
    Tick.READ: (" ✓✓", "$accent"),
    Tick.FAILED: (" ✗", "$error"),
}


class MessageLine(Static):
    """One message."""

    def __init__(self, line: Line) -> None:
        super().__init__(_content(line), markup=False)
        self.line = line
        self.set_class(line.is_own, "own")

    def show(self, line: Line) -> None:
        """Show the message as it is now."""
        if line != self.line:
            self.line = line
            self.update(_content(line))


class MessageList(VerticalScroll):
    """The messages; asks for older ones when its top comes into sight."""

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Notice that the person scrolls back."""
        super().watch_scroll_y(old_value, new_value)
        if new_value < old_value and new_value <= 2 and isinstance(self.app, Chat):
            self.app.load_older()


class TextInput(Input):
    """Where one writes: one line."""

    def _on_paste(self, event: Paste) -> None:
        """Make one line of all lines; Textual's own, which goes on from here, takes the first."""
        event.text = " ".join(event.text.splitlines())


class Chat(App[None]):
    """A conversation with one person. `client` is connected by the caller, and closed by it."""

    CSS = """
    #title { height: 1; background: $panel; padding: 0 1; }
    #banner { height: 1; background: $warning; color: $text; padding: 0 1; display: none; }
    #messages { padding: 0 1; }
    MessageLine { margin: 0 8 1 0; width: auto; max-width: 100%; }
    MessageLine.own { margin: 0 0 1 8; color: $text-primary; }
    #typing { height: 1; padding: 0 1; color: $text-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "quit", "Leave"),
        Binding("pageup", "scroll(-1)", "Back", priority=True),
        Binding("pagedown", "scroll(1)", "Forward", priority=True),
    ]

    def __init__(self, client: Client, peer: str) -> None:
        super().__init__()
        self.title = f"Duet: {printable(peer)}"
        self.conversation = Conversation(client.user_id)
        self._client = client
        self._peer = peer
        self._title = Static(printable(peer), id="title", markup=False)
        self._banner = Static("", id="banner", markup=False)
        self._messages = MessageList(id="messages")
        self._typing = Static("", id="typing", markup=False)
        self._lines: dict[str, MessageLine] = {}
        self._has_older = False
        self._presence = ""
        self._typing_timer: Timer | None = None

    def compose(self) -> ComposeResult:
        """Lay out the screen."""
        yield self._title
        yield self._banner
        yield self._messages
        yield self._typing
        yield TextInput(placeholder=f"Write to {printable(self._peer)}", id="text", max_length=4000)

    def on_mount(self) -> None:
        """Begin."""
        self.query_one("#text").focus()
        self._messages.anchor()
        if not self._client.is_connected:
            self._show_banner("Connecting …")
        self._load()
        self._follow()

    async def on_input_submitted(self, submitted: Input.Submitted) -> None:
        """Send what was written; it stays in sight whatever the connection does."""
        text = submitted.value.strip()
        if not text:
            return
        submitted.input.clear()
        try:
            outgoing = await self._client.send(self._peer, text)
        except DuetError as error:
            submitted.input.value = text
            self.notify(printable(str(error)), severity="error")
            return
        self.conversation.queued(outgoing.id, text)
        await self._refresh()
        self._messages.anchor()

    def on_input_changed(self, changed: Input.Changed) -> None:
        """Let the other see that one types."""
        self._tell_typing(bool(changed.value))

    def action_scroll(self, direction: int) -> None:
        """Scroll a page, wherever the focus is."""
        messages = self._messages
        (messages.scroll_page_up if direction < 0 else messages.scroll_page_down)(animate=False)
        if direction < 0 and messages.scroll_y <= messages.size.height:
            self.load_older()

    @work(exclusive=True, group="history")
    async def _load(self) -> None:
        """Show the latest messages. Asked again for as long as there is no answer."""
        try:
            self.conversation.peer_id = await self._client.id_of(self._peer)
            page = await self._client.history(self._peer, limit=_PAGE)
            for item in (await self._client.conversations()).items:
                if item.conversation == page.conversation:
                    self.conversation.marked(item.peer_received, item.peer_read)
                    self._presence = "online" if item.peer.online else ""
        except DuetError as error:
            self.notify(printable(str(error)), severity="warning")
            return
        self.conversation.id = page.conversation
        self.conversation.loaded(page.messages)
        for row in self._client.queued:
            if row.recipient in (self._peer.lower(), self.conversation.peer_id):
                self.conversation.queued(row.id, str(row.fields["text"]))
        self._has_older = page.more
        await self._refresh()
        self._mark_read()

    @work(group="older")
    async def load_older(self) -> None:
        """Show what was before the first message in sight, without moving what is being read."""
        first = self.conversation.first_seq
        if not self._has_older or first is None:
            return
        self._has_older = False
        try:
            page = await self._client.history(self._peer, before=first, limit=_PAGE)
        except DuetError as error:
            self._has_older = True
            self.notify(printable(str(error)), severity="warning")
            return
        from_bottom = self._messages.virtual_size.height - self._messages.scroll_y
        self.conversation.loaded(page.messages)
        await self._refresh()
        self.call_after_refresh(self._keep_place, from_bottom, page.more)

    def _keep_place(self, from_bottom: float, has_older: bool) -> None:
        messages = self._messages
        messages.scroll_to(y=messages.virtual_size.height - from_bottom, animate=False)
        self._has_older = has_older

    @work(exclusive=True, group="events")
    async def _follow(self) -> None:
        """Show what happens, until the client ends."""
        try:
            async for event in self._client.events():
                match event:
                    case ConnectionLost(reason):
                        self._presence = ""  # it could not be known
                        self._show_banner(
                            f"No connection ({reason}). Messages wait and go out later."
                        )
                    case ConnectionRestored():
                        self._show_banner("")
                        if self.conversation.id is None:
                            self._load()
                    case Typing(sender) if sender == self.conversation.peer_id:
                        self._show_typing(event)
                    case Presence(user, online) if user == self.conversation.peer_id:
                        self._presence = "online" if online else ""
                    case ResyncNeeded():
                        self.conversation.forget_messages()
                        self._load()
                    case MessageSent() | SendFailed():
                        self.conversation.settled(event)
                    case _:
                        self.conversation.happened(event)
                await self._refresh()
                self._mark_read()
        except LoginRequired:
            self._show_banner("Logged out on this device. Leave, then `duet login`.")
        except ConnectionEnded as error:
            self._show_banner(printable(str(error)))

    @work(exclusive=True, group="read")
    async def _mark_read(self) -> None:
        seq = self.conversation.unread_seq()
        if seq is not None and self.conversation.id is not None:
            with contextlib.suppress(DuetError):
                await self._client.mark_read(self.conversation.id, seq)
                self.conversation.was_read(seq)

    @work(exclusive=True, group="typing")
    async def _tell_typing(self, active: bool) -> None:
        with contextlib.suppress(DuetError):
            await self._client.typing(self._peer, active=active)

    async def _refresh(self) -> None:
        """Bring the screen in line with the conversation."""
        self._title.update(f"{printable(self._peer)}  {self._presence}".rstrip())
        wanted = self.conversation.lines()
        keys = {line.key for line in wanted}
        for key in [key for key in self._lines if key not in keys]:
            await self._lines.pop(key).remove()
        fresh: list[MessageLine] = []
        for line in wanted:
            shown = self._lines.get(line.key)
            if shown is None:
                fresh.append(MessageLine(line))
                self._lines[line.key] = fresh[-1]
                continue
            shown.show(line)
            await self._insert(fresh, shown)
            fresh = []
        await self._insert(fresh, None)

    async def _insert(self, fresh: list[MessageLine], before: MessageLine | None) -> None:
        if fresh and self._messages.is_attached:  # not while the window is being closed
            await self._messages.mount(*fresh, before=before)

    def _show_banner(self, text: str) -> None:
        self._banner.update(printable(text))
        self._banner.display = bool(text)

    def _show_typing(self, typing: Typing) -> None:
        if self._typing_timer is not None:
            self._typing_timer.stop()
        text = f"{printable(self._peer)} is typing …" if typing.active else ""
        self._typing.update(text)
        self._typing_timer = self.set_timer(typing.expires_in_ms / 1000, self._stopped_typing)

    def _stopped_typing(self) -> None:
        self._typing.update("")


def _content(line: Line) -> Content:
    mark, style = _TICKS[line.tick]
    text = "deleted" if line.deleted else printable(line.text)
    parts = [
        Content.styled(f"{line.clock} ", "dim"),
        Content.styled(text, "italic dim" if line.deleted else ""),
        Content.styled(" (edited)" if line.edited and not line.deleted else "", "dim"),
        Content.styled(mark, style),
        Content.styled(f" {printable(line.failure)}" if line.failure else "", "$error"),
    ]
    return Content("").join(parts)
