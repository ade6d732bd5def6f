"""What waits to be settled: whole conversations, in turn, and nothing forgotten or done twice."""

from shared.ids import UserId
from ws_gateway.adapters.sqlite_backlog import Backlog, Sent, Slice

PEOPLE = [(UserId(f"u_{n}"), UserId(f"v_{n}")) for n in range(5)]


class Log:
    """Sends messages to a backlog."""

    def __init__(self) -> None:
        self.backlog = Backlog()
        self._position = 0
        self._last_seq = [0] * len(PEOPLE)

    def send(self, *conversations: int) -> None:
        sent = []
        for conversation in conversations:
            self._position += 1
            self._last_seq[conversation] += 1
            seq = self._last_seq[conversation]
            sent.append(Sent(conversation, 1, 2, PEOPLE[conversation], seq, self._position, seq))
        self.backlog.add(sent)


def named(slices: list[Slice]) -> list[tuple[int, list[int]]]:
    """Each slice's conversation and seqs."""
    return [(one.conversation, [sent.seq for sent in one.messages]) for one in slices]


def test_conversations_are_settled_whole_and_in_turn_while_more_comes() -> None:
    log = Log()
    log.send(*[0, 1, 2] * 4)

    first = log.backlog.oldest(4)
    log.send(0, 1, 2)
    log.backlog.settled(first)
    second = log.backlog.oldest(4)
    log.send(0, 1, 2)
    log.backlog.settled(second)

    assert named(first) == [(0, [1, 2, 3, 4])]
    assert named(second) == [(1, [1, 2, 3, 4])]  # the fifth is over the limit
    assert named(log.backlog.oldest(7)) == [(2, [1, 2, 3, 4, 5, 6]), (0, [5, 6])]


def test_conversation_with_more_than_the_limit_is_cut() -> None:
    log = Log()
    log.send(*[0] * 10, 1)

    first = log.backlog.oldest(4)
    log.backlog.settled(first)
    second = log.backlog.oldest(4)
    log.backlog.settled(second)

    assert named(first) == [(0, [1, 2, 3, 4])]
    assert named(second) == [(1, [1]), (0, [5, 6, 7, 8])]
    assert [sent.seq for sent in log.backlog.of(0)] == [9, 10]
    assert len(log.backlog) == 2


def test_slices_hold_fewer_than_twice_the_limit() -> None:
    log = Log()
    log.send(*[0] * 3, *[1] * 9, *[2] * 9)

    assert named(log.backlog.oldest(4)) == [(0, [1, 2, 3]), (1, [1, 2, 3, 4])]


def test_what_is_settled_next_begins_where_the_longest_wait_began() -> None:
    log = Log()
    assert not log.backlog.begins_by(100)
    log.send(0, 1, 0)

    assert not log.backlog.begins_by(0)
    assert log.backlog.begins_by(1)

    log.backlog.settled(log.backlog.oldest(1))
    assert not log.backlog.begins_by(1)
    assert log.backlog.begins_by(2)


def test_nothing_waits_once_everything_is_settled() -> None:
    log = Log()
    log.send(*range(5))
    user = PEOPLE[3][0]

    assert named(log.backlog.of_user(user)) == [(3, [1])]
    assert log.backlog.settled_upto(5) == 0

    settled = log.backlog.oldest(100)
    log.backlog.settled(settled)
    log.backlog.settled(settled[:0])

    assert not log.backlog
    assert log.backlog.of_user(user) == []
    assert log.backlog.settled_upto(5) == 5
