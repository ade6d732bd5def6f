"""Group commit over SQLite against a model: dense seq, one answer each, faults, restarts."""

import asyncio
import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from shared.ids import ConversationId, UserId, conversation_id
from tests.support.waiting import until
from ws_gateway.adapters.sqlite_stores import SqliteStores, open_sqlite_stores
from ws_gateway.conversations import Appended, Change, Conflict, Draft, Outcome
from ws_gateway.group_commit import Batch, GroupCommit
from ws_gateway.ports import StoreUnavailable

_PEOPLE = [UserId(name) for name in ("u_ann", "u_bob", "u_cid")]
_POISON = "\ud800"  # SQLite takes no lone surrogate, so this draft cannot be stored

PAIRS = st.permutations(_PEOPLE).map(lambda people: (people[0], people[1]))


class GroupCommitMachine(RuleBasedStateMachine):
    """Drives the real committer and the real store; the model is a dictionary and a list."""

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._directory = Path(tempfile.mkdtemp(prefix="duet-machine-"))
        self._stack = contextlib.AsyncExitStack()
        self._submitted = 0
        self._answers: list[tuple[Draft, Outcome | Exception]] = []
        self._stored: dict[tuple[UserId, str], tuple[Draft, ConversationId, int, int]] = {}
        self._last_seq: dict[ConversationId, int] = {}
        self._checked = 0
        self._may_be_unavailable = False
        self._runner.run(self._start())

    async def _start(self) -> None:
        self._stores: SqliteStores = await self._stack.enter_async_context(
            open_sqlite_stores(self._directory / "messages.db", busy_timeout_s=0.005)
        )
        self._group: GroupCommit[Draft, Outcome] = GroupCommit(
            self._commit,
            self._committed,
            could_not_tell=self._could_not_tell,
            source=lambda draft: draft.sender,
            max_batch=4,
        )
        self._running = asyncio.create_task(self._group.run())

    async def _commit(self, drafts: Sequence[Change]) -> list[Outcome]:
        return await self._stores.messages.append_batch(drafts, 1)

    def _committed(self, batch: Batch[Draft, Outcome]) -> None:
        self._answers.extend(zip(batch.items, batch.outcomes, strict=True))

    def _could_not_tell(self) -> None:
        raise AssertionError("`_committed` never raises")

    async def _stop(self) -> None:
        self._group.drain()
        await self._running
        await self._stack.aclose()

    async def _settle(self) -> None:
        await until(lambda: len(self._answers) == self._submitted)

    @rule(
        pair=PAIRS,
        client_id=st.sampled_from(["1", "2", "3", "4", "5", "6"]),
        text=st.sampled_from(["a", "a", "a", "b", _POISON]),
    )
    def submit(self, pair: tuple[UserId, UserId], client_id: str, text: str) -> None:
        """Somebody sends something: new, a retry, or another thing under a used id."""
        self._group.submit(Draft(pair[0], pair[1], client_id, text))
        self._submitted += 1

    @rule(
        pairs=st.lists(PAIRS, min_size=2, max_size=12),
        first=st.integers(0, 1000),
    )
    def submit_many(self, pairs: list[tuple[UserId, UserId]], first: int) -> None:
        """Several people send at once."""
        for number, (sender, recipient) in enumerate(pairs):
            self._group.submit(Draft(sender, recipient, f"n{first + number}", "a"))
            self._submitted += 1

    @rule()
    def commit(self) -> None:
        """Time passes until everything is answered."""
        self._may_be_unavailable = False
        self._runner.run(self._settle())

    @rule(turns=st.integers(1, 5))
    def pass_time(self, turns: int) -> None:
        """Time passes for a little while: a commit may be under way."""

        async def turn() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self._runner.run(turn())

    @rule()
    def commit_while_locked(self) -> None:
        """Something holds the database's lock meanwhile."""
        self._may_be_unavailable = True
        path = self._directory / "messages.db"
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("PRAGMA busy_timeout=5000")
            other.execute("BEGIN IMMEDIATE")
            self._runner.run(self._settle())
            other.execute("ROLLBACK")

    @rule()
    def restart(self) -> None:
        """The gateway stops in order and starts again."""

        async def restart() -> None:
            await self._stop()
            self._stack = contextlib.AsyncExitStack()
            await self._start()

        self._may_be_unavailable = False
        self._runner.run(restart())
        assert len(self._answers) == self._submitted

    @invariant()
    def answers_agree_with_the_model(self) -> None:
        """Replay the answers, in the order they came, against the model."""
        assert len(self._answers) <= self._submitted
        for draft, outcome in self._answers[self._checked :]:
            self._check(draft, outcome)
        self._checked = len(self._answers)

    def _check(self, draft: Draft, outcome: Outcome | Exception) -> None:
        if isinstance(outcome, StoreUnavailable):
            assert self._may_be_unavailable
            return
        earlier = self._stored.get((draft.sender, draft.client_id))
        if draft.text == _POISON:
            assert isinstance(outcome, Exception | Conflict)
        elif earlier is None:
            assert isinstance(outcome, Appended)
            assert not outcome.duplicate
            message = outcome.event.message
            conversation = conversation_id(draft.sender, draft.recipient)
            assert message.conversation == conversation
            assert message.seq == self._last_seq.get(conversation, 0) + 1
            assert message.position == len(self._stored) + 1
            self._last_seq[conversation] = message.seq
            self._stored[draft.sender, draft.client_id] = (
                draft,
                conversation,
                message.seq,
                message.position,
            )
        elif draft == earlier[0]:
            assert isinstance(outcome, Appended)
            assert outcome.duplicate
            message = outcome.event.message
            assert (message.conversation, message.seq, message.position) == earlier[1:]
        else:
            assert isinstance(outcome, Conflict)

    def teardown(self) -> None:
        """Everything is answered in the end, and the file says what was answered."""
        try:
            self._may_be_unavailable = False
            self._runner.run(self._stop())
            assert len(self._answers) == self._submitted
            self.answers_agree_with_the_model()
            with contextlib.closing(sqlite3.connect(self._directory / "messages.db")) as file:
                rows = file.execute(
                    "SELECT conversations.id, seq, position FROM messages JOIN conversations"
                    " ON conversations.key = messages.conversation ORDER BY position"
                ).fetchall()
                assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert rows == sorted((row[1:] for row in self._stored.values()), key=lambda r: r[2])
        finally:
            self._runner.close()
            shutil.rmtree(self._directory)


TestGroupCommit = pytest.mark.timeout(400)(GroupCommitMachine.TestCase)  # when it must shrink
TestGroupCommit.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
