"""What clients sent waits for its turn: in order, a little at a time, whoever and however much."""

from structlog.testing import capture_logs

from tests.support.turns import Turns
from ws_gateway.intake import Intake


class TimedTurns(Turns):
    """Has a clock that each piece moves on."""

    def __init__(self, piece_s: float) -> None:
        super().__init__()
        self.piece_s = piece_s
        self.now = 0.0
        self.taken: list[str] = []

    def clock(self) -> float:
        return self.now

    def turn(self) -> list[str]:
        """Take a turn of the loop. Returns whose pieces were taken in it."""
        self.taken.clear()
        self.take_one()
        return list(self.taken)


class Client:
    """Has sent so many pieces."""

    def __init__(self, name: str, pieces: int, turns: TimedTurns) -> None:
        self.name, self.pieces, self._turns = name, pieces, turns

    def take_piece(self) -> bool:
        self.pieces -= 1
        self._turns.taken.append(self.name)
        self._turns.now += self._turns.piece_s
        return self.pieces > 0


def test_turn_is_used_up_by_so_much_however_many_wait() -> None:
    turns = TimedTurns(piece_s=0.0004)
    intake = Intake(turns, clock=turns.clock)
    for name in "abcdefgh":
        intake.add(Client(name, 100, turns))
    assert [turns.turn() for _ in range(3)] == [list("abc"), list("def"), list("gha")]


def test_whoever_sent_little_is_not_held_up_by_who_sent_much() -> None:
    turns = TimedTurns(piece_s=0.0004)
    intake = Intake(turns, clock=turns.clock)
    intake.add(Client("flooder", 1000, turns))
    assert turns.turn() == ["flooder"] * 3
    intake.add(Client("other", 2, turns))
    assert turns.turn() == ["flooder", "other", "flooder"]
    assert turns.turn() == ["other", "flooder", "flooder"]


class FailingClient(Client):
    """Cannot be taken from."""

    def take_piece(self) -> bool:
        super().take_piece()
        raise RuntimeError("a fault of ours")


def test_client_that_cannot_be_taken_from_holds_nobody_up() -> None:
    turns = TimedTurns(piece_s=0.0004)
    intake = Intake(turns, clock=turns.clock)
    intake.add(FailingClient("failing", 9, turns))
    intake.add(Client("other", 2, turns))
    with capture_logs() as logs:
        assert turns.turn() == ["failing", "other", "other"]
    assert [entry["event"] for entry in logs] == ["taking what a client sent failed"]


def test_slow_piece_still_gets_its_turn_and_nothing_happens_when_nobody_waits() -> None:
    turns = TimedTurns(piece_s=1.0)
    intake = Intake(turns, clock=turns.clock)
    intake.add(Client("a", 1, turns))
    intake.add(Client("b", 1, turns))
    assert [turns.turn() for _ in range(3)] == [["a"], ["b"], []]
    intake.add(Client("c", 1, turns))
    assert [turns.turn() for _ in range(2)] == [["c"], []]
