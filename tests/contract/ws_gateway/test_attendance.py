"""Who is on which gateway: counted across them, and no dead gateway keeps anybody here."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from shared.ids import ConnectionId, UserId, new_connection_id
from shared.postgres import Connection, Postgres
from tests.support.postgres import Databases, somebody_waits
from tests.support.talk import ANN, BOB, CID
from ws_gateway.adapters.local_attendance import LocalAttendance
from ws_gateway.adapters.postgres_attendance import PostgresAttendance
from ws_gateway.adapters.postgres_people import PostgresPeopleStore
from ws_gateway.adapters.postgres_stores import MIGRATIONS, SCHEMA
from ws_gateway.ports import Arrival, Attendance, StoreUnavailable

EVE = UserId("u_eve")


@pytest.fixture
async def database(postgres_databases: Databases) -> AsyncIterator[Postgres]:
    url = postgres_databases.migrated(MIGRATIONS, SCHEMA)
    database = await Postgres.open(url, MIGRATIONS, schema=SCHEMA)
    yield database
    await database.close()


@pytest.fixture(params=["local", "postgres"])
def attendance(request: pytest.FixtureRequest) -> Attendance:
    """That of the only gateway there is."""
    if request.param == "local":
        return LocalAttendance()
    return on(request.getfixturevalue("database"))


@pytest.fixture
async def here(database: Postgres) -> PostgresAttendance:
    """That of one of two gateways."""
    attendance = on(database)
    await attendance.beat(hears=True)
    return attendance


@pytest.fixture
async def there(database: Postgres) -> PostgresAttendance:
    """That of the other one."""
    attendance = on(database)
    await attendance.beat(hears=True)
    return attendance


def on(database: Postgres) -> PostgresAttendance:
    return PostgresAttendance(database, max_connections_per_user=2)


async def come(attendance: Attendance, user_id: UserId) -> ConnectionId:
    """Connect. Returns the connection."""
    connection = new_connection_id()
    await attendance.arrive(user_id, connection)
    return connection


async def let_die(database: Postgres, gateway: PostgresAttendance) -> None:
    """Let the last beat of a gateway be a minute ago."""

    async def age(connection: Connection) -> None:
        statement = "UPDATE gateways SET seen_at = seen_at - interval '1 minute' WHERE id = $1"
        assert await connection.execute(statement, gateway._gateway) == "UPDATE 1"

    await database.autocommit(age)


async def bury(database: Postgres, dead: PostgresAttendance, other: PostgresAttendance) -> None:
    """Let the other gateway take this one for dead."""
    await let_die(database, dead)
    await other.beat(hears=True)


async def test_only_gateway_has_everybody(attendance: Attendance) -> None:
    assert (await attendance.beat(hears=True)).others == 0
    arrival = await attendance.arrive(ANN, ConnectionId("n_1"))
    assert (arrival.is_first, list(arrival.evicted)) == (True, [])
    await attendance.arrive(BOB, ConnectionId("n_2"))
    assert await attendance.elsewhere([ANN, BOB], EVE) == set()
    await attendance.leave(ConnectionId("n_2"), may_return=False)
    await attendance.leave(ConnectionId("n_1"), may_return=True)
    assert await attendance.depart(ANN)
    await attendance.restore([(BOB, ConnectionId("n_2"))])
    assert (await attendance.beat(hears=True)).others == 0


async def test_who_is_on_another_gateway_is_elsewhere(
    here: PostgresAttendance, there: PostgresAttendance
) -> None:
    await come(here, ANN)
    await come(there, BOB)
    assert await here.elsewhere([ANN, BOB, CID], EVE) == {BOB}
    assert await there.elsewhere([ANN, BOB, CID], EVE) == {ANN}


async def test_hidden_presence_is_not_seen_elsewhere(
    here: PostgresAttendance, there: PostgresAttendance, database: Postgres
) -> None:
    await come(there, BOB)
    people = PostgresPeopleStore(database)
    await people.set_preferences(BOB, shares_presence=False)
    assert await here.elsewhere([BOB], EVE) == set()
    await people.set_preferences(BOB, shares_presence=True)
    assert await here.elsewhere([BOB], EVE) == {BOB}


@pytest.mark.parametrize(("blocker", "blocked"), [(ANN, BOB), (BOB, ANN)])
async def test_block_hides_who_is_elsewhere(
    there: PostgresAttendance, database: Postgres, blocker: UserId, blocked: UserId
) -> None:
    here = on(database)
    await come(there, BOB)
    await PostgresPeopleStore(database).block(blocker, blocked, 1)
    assert await here.elsewhere([BOB], ANN) == set()
    assert await here.elsewhere([BOB], CID) == {BOB}


async def test_first_gateway_of_a_person_is_told_that_it_is(
    here: PostgresAttendance, there: PostgresAttendance
) -> None:
    assert (await here.arrive(ANN, new_connection_id())).is_first
    assert not (await there.arrive(ANN, new_connection_id())).is_first
    assert (await here.arrive(ANN, new_connection_id())).is_first


async def test_who_may_return_is_here_until_they_depart(
    here: PostgresAttendance, there: PostgresAttendance
) -> None:
    connection = await come(here, ANN)
    await here.leave(connection, may_return=True)
    assert await there.elsewhere([ANN], EVE) == {ANN}
    assert await here.depart(ANN)
    assert await there.elsewhere([ANN], EVE) == set()


async def test_who_is_still_on_another_gateway_has_not_gone(
    here: PostgresAttendance, there: PostgresAttendance
) -> None:
    connection = await come(here, ANN)
    await here.leave(connection, may_return=True)
    phone = await come(there, ANN)
    assert not await here.depart(ANN)
    await there.leave(phone, may_return=True)
    assert await there.depart(ANN)


async def test_of_two_that_depart_at_once_one_at_least_is_told(
    here: PostgresAttendance, there: PostgresAttendance
) -> None:
    for gateway in (here, there):
        await gateway.leave(await come(gateway, ANN), may_return=True)
    assert any(await asyncio.gather(here.depart(ANN), there.depart(ANN)))


async def test_who_returns_in_time_does_not_depart(here: PostgresAttendance) -> None:
    await here.leave(await come(here, ANN), may_return=True)
    await come(here, ANN)
    assert not await here.depart(ANN)


async def test_who_returns_is_here_all_the_while(
    here: PostgresAttendance, there: PostgresAttendance, database: Postgres
) -> None:
    """Their peers who come just then are told of nobody who was here before, but by this."""
    await there.leave(await come(there, BOB), may_return=True)
    name = new_connection_id()

    async def hold_the_name(outside: Connection) -> asyncio.Task[Arrival]:
        await outside.execute(_INSERT, name, EVE)
        returning = asyncio.create_task(there.arrive(BOB, name))
        await database.read(somebody_waits)
        assert await here.elsewhere([BOB], ANN) == {BOB}
        await outside.execute("DELETE FROM attendance WHERE connection = $1", name)
        return returning

    assert (await (await database.write(hold_the_name))).is_first
    assert await here.elsewhere([BOB], ANN) == {BOB}
    assert not await there.depart(BOB)


async def test_oldest_connection_on_any_gateway_makes_room(
    here: PostgresAttendance, there: PostgresAttendance
) -> None:
    oldest, older = await come(here, ANN), await come(there, ANN)
    await come(here, BOB)
    assert (await there.arrive(ANN, new_connection_id())).evicted == [oldest]
    await here.leave(oldest, may_return=True)
    assert (await here.arrive(ANN, new_connection_id())).evicted == [older]


async def test_one_that_is_leaving_takes_nobodys_place(
    here: PostgresAttendance, there: PostgresAttendance
) -> None:
    await come(here, ANN)
    await there.leave(await come(there, ANN), may_return=True)
    assert (await here.arrive(ANN, new_connection_id())).evicted == []


async def test_people_who_arrive_together_are_told_apart(here: PostgresAttendance) -> None:
    names = [new_connection_id() for _ in range(6)]
    users = [ANN, BOB, ANN, BOB, ANN, CID]
    arrivals = await asyncio.gather(*map(here.arrive, users, names))
    assert arrivals[1].evicted == arrivals[5].evicted == []
    assert arrivals[4].evicted == [names[0]]


async def test_dead_gateway_leaves_nobody_here(
    here: PostgresAttendance, there: PostgresAttendance, database: Postgres
) -> None:
    for user in (ANN, BOB):
        await come(there, user)
    await come(here, BOB)
    await let_die(database, there)
    pulse = await here.beat(hears=True)
    assert [user for user, _ in pulse.departed] == [ANN]
    assert pulse.others == 0
    assert await here.elsewhere([ANN, BOB], EVE) == set()
    assert (await here.beat(hears=True)).departed == []


async def test_one_gateway_alone_takes_over_from_a_dead_one(
    here: PostgresAttendance, there: PostgresAttendance, database: Postgres
) -> None:
    dead = on(database)
    await dead.beat(hears=True)
    await come(dead, ANN)
    await let_die(database, dead)
    pulses = await asyncio.gather(here.beat(hears=True), there.beat(hears=True))
    assert sum(len(pulse.departed) for pulse in pulses) == 1


async def test_gateway_that_was_taken_for_dead_restores_its_people(
    here: PostgresAttendance, there: PostgresAttendance, database: Postgres
) -> None:
    connection = await come(here, ANN)
    await bury(database, here, there)
    assert (await here.beat(hears=True)).was_forgotten
    await here.restore([(ANN, connection)])
    assert await there.elsewhere([ANN], EVE) == {ANN}
    assert not (await here.beat(hears=True)).was_forgotten


async def test_gateway_stays_forgotten_until_it_has_restored_its_people(
    here: PostgresAttendance, there: PostgresAttendance, database: Postgres
) -> None:
    """Its beat may fail halfway, when it has said already that it lives."""
    connection = await come(here, ANN)
    await bury(database, here, there)

    async def end_who_waits(outside: Connection) -> None:
        await outside.execute("LOCK TABLE attendance")
        beat = asyncio.create_task(here.beat(hears=True))
        await database.read(somebody_waits)
        await database.read(lambda connection: connection.execute(_END_WHO_WAITS))
        with pytest.raises(StoreUnavailable):
            await beat

    await database.write(end_who_waits)
    assert (await here.beat(hears=True)).was_forgotten
    await here.restore([(ANN, connection)])
    assert not (await here.beat(hears=True)).was_forgotten


_INSERT = "INSERT INTO attendance (connection, person, gateway) VALUES ($1, $2, 'outside')"
_END_WHO_WAITS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


async def test_restoring_forgets_what_is_not_there(
    here: PostgresAttendance, there: PostgresAttendance
) -> None:
    await come(here, ANN)
    await come(there, CID)
    await here.restore([(BOB, new_connection_id())])
    assert await there.elsewhere([ANN, BOB], EVE) == {BOB}
    assert await here.elsewhere([CID], EVE) == {CID}


async def test_what_a_forgotten_gateway_left_goes_when_the_next_one_starts(
    here: PostgresAttendance, there: PostgresAttendance, database: Postgres
) -> None:
    await let_die(database, there)
    await here.beat(hears=True)
    await come(there, ANN)
    assert await here.elsewhere([ANN], EVE) == {ANN}
    await on(database).beat(hears=True)
    assert await here.elsewhere([ANN], EVE) == set()


async def test_gateway_that_is_cut_off_says_so_to_the_others(
    here: PostgresAttendance, there: PostgresAttendance
) -> None:
    pulse = await here.beat(hears=False)
    assert (pulse.others, pulse.others_are_deaf) == (1, False)
    pulse = await there.beat(hears=True)
    assert (pulse.others, pulse.others_are_deaf) == (1, True)
    await here.beat(hears=True)
    assert not (await there.beat(hears=True)).others_are_deaf
