"""Measurements of the machine, of connecting, of the profile service and of the start; see
`message_scenarios`."""

import tempfile
from pathlib import Path

import msgspec

from bench import proc, tool
from bench.connects import ConnectsPlan, ConnectsResult
from bench.footprint import FootprintPlan, FootprintResult
from bench.gaps import GapsPlan, GapsResult
from bench.http_load import HttpPlan, HttpResult
from bench.people import sign_up
from bench.record import Record, Row, exactly, spread
from bench.services import services
from bench.stage import Options, Stage, say
from bench.start import StartPlan, StartResult
from shared.introspection import INTROSPECT_PATH, TokenPair
from shared.service_auth import ServiceCredentials, load_or_create_secret

__all__ = ["connects", "gaps", "memory", "profile", "start"]

_TALKATIVE = 150
"""People who all talk with each other: some 11,000 conversations."""


def gaps(options: Options, record: Record) -> None:
    """How often cores stand still before anything of the bench runs on them."""
    say("idle cores")
    plan = GapsPlan(cores=[tool.SERVER_CORE, tool.GENERATOR_CORE])
    results = [
        result
        for _ in range(options.repetitions)
        for result in tool.run("bench.gaps", plan, list[GapsResult], core=None)
    ]
    often = spread(result.gaps_per_s for result in results)
    record.rows += [
        Row(
            what="a core with nothing to do stands still",
            value=spread(result.lost_ms_per_s for result in results),
            unit="ms/s",
            note=f"{often.low:.1f} to {often.high:.1f} times a second, for 1 ms or longer",
        ),
        Row(
            what="the same: at the longest",
            value=spread(result.longest_ms for result in results),
            unit="ms",
        ),
    ]


def connects(on: Stage, options: Options, record: Record) -> None:
    """Authenticated connects a second, and the memory of idle connections.

    Comes first: a process that has held connections before has memory to spare for new ones.
    """
    tokens = [person.access_token for person in on.people]
    count = options.connections
    for server, url, pid in (
        ("relay", on.relay.url, on.relay.pid),
        ("Duet", on.duet.url, on.duet.gateway_pid),
    ):
        say(f"{count:,} connections to {server}")
        is_duet = server == "Duet"
        plan = ConnectsPlan(
            url=url,
            server_pid=pid,
            companions=[on.duet.profile_pid],
            tokens=tokens,
            connections=count,
            storm_connections=count // 2 if is_duet else 0,
        )
        on.wait_for_quiet()
        result = tool.run("bench.connects", plan, ConnectsResult)
        record.connects[server] = result
        timed = min(plan.timed_connections, count)
        record.rows += [
            Row(
                what=f"connects, {timed:,}: {server}",
                value=exactly(result.connects_per_s),
                unit="/s",
                target=2000 if is_duet else None,
                note=f"server {result.cpu.server:.0%}, generator {result.cpu.generator:.0%}, "
                f"others {result.cpu.others:.0%} of a core",
            ),
            Row(
                what=f"an idle connection of {count:,}: {server}",
                value=exactly(result.bytes_a_connection / 1000),
                unit="kB",
                target=20 if is_duet else None,
                at_most=True,
            ),
            Row(
                what=f"the process with {count:,} connections: {server}",
                value=exactly(result.server_rss_bytes / 1e6),
                unit="MB",
                target=250 if is_duet and count == 10_000 else None,
                at_most=True,
            ),
        ]
        if plan.storm_connections:
            record.rows.append(
                Row(
                    what=f"{plan.storm_connections:,} reconnect in {plan.storm_s:g} s: all back",
                    value=exactly(result.storm_s),
                    unit="s",
                    target=15,
                    at_most=True,
                )
            )


def profile(on: Stage, options: Options, record: Record) -> None:
    """Token checks and refreshes by the profile service, moved to the server's core for this."""
    proc.pin(on.duet.profile_pid, tool.SERVER_CORE)
    secret = load_or_create_secret(on.duet.data_dir / "service_secret")
    authorization = ServiceCredentials(secret, "ws_gateway").authorization()
    pairs = [TokenPair(p.access_token) for p in on.people]
    one_each = [_json(pair) for pair in pairs[:32]]
    list_of_100 = [_json(pairs)] * 4
    measurements = (
        ("introspections, one a call", INTROSPECT_PATH, authorization, one_each, 1, 8000),
        ("introspections, 100 a call", INTROSPECT_PATH, authorization, list_of_100, 100, None),
        (
            "refreshes",
            "/v1/token",
            "",
            [f'{{"refresh_token":"{p.refresh_token}"}}' for p in on.people[:64]],
            1,
            1500,
        ),
    )
    for name, path, credentials, bodies, each, target in measurements:
        say(name)
        plan = HttpPlan(
            port=on.duet.profile_port,
            server_pid=on.duet.profile_pid,
            path=path,
            authorization=credentials,
            bodies=bodies,
            rotate=path == "/v1/token",
            measured_s=options.measured_s,
            expected='"refresh_token"' if path == "/v1/token" else '"active":true',
        )
        on.wait_for_quiet()
        result = tool.run("bench.http_load", plan, HttpResult)
        record.profile[name] = result
        record.rows.append(
            Row(
                what=name,
                value=exactly(result.requests_per_s * each),
                unit="/s",
                target=target,
                note=f"{len(bodies)} connections; p99 {result.p99_us / 1000:.3g} ms; service "
                f"{result.cpu.server:.0%}, generator {result.cpu.generator:.0%} of a core",
            )
        )
    proc.pin(on.duet.profile_pid, tool.GENERATOR_CORE)


def memory(options: Options, record: Record) -> None:
    """What a conversation and a used connection cost, in a gateway that has done nothing else."""
    say("memory of conversations and connections")
    with (
        tempfile.TemporaryDirectory(dir=options.directory, prefix="duet-bench-") as directory,
        services(Path(directory)) as duet,
    ):
        plan = FootprintPlan(
            url=duet.url,
            server_pid=duet.gateway_pid,
            people=sign_up(duet.profile_url, _TALKATIVE),
        )
        result = tool.run("bench.footprint", plan, FootprintResult)
    record.footprint = result
    record.rows += [
        Row(
            what=f"a conversation of {result.conversations:,}, in memory",
            value=exactly(result.bytes_a_conversation / 1000),
            unit="kB",
            note=f"everybody of {_TALKATIVE} people has written to everybody",
        ),
        Row(
            what="what being used adds to a connection",
            value=exactly(result.bytes_a_use / 1000),
            unit="kB",
            note=f"{result.connections:,} connections; idle, one of theirs has "
            f"{result.bytes_an_idle_connection / 1000:.1f} kB",
        ),
    ]


def start(options: Options, record: Record) -> None:
    """From what `make run` starts to the first ack. Call it while nothing else runs."""
    for repetition in range(options.repetitions):
        say(f"start, {repetition + 1} of {options.repetitions}")
        plan = StartPlan(directory=str(options.directory))
        record.starts.append(tool.run("bench.start", plan, StartResult, core=None))
    ready = spread(result.ready_s for result in record.starts)
    record.rows.append(
        Row(
            what="start to first ack",
            value=spread(result.first_ack_s for result in record.starts),
            unit="s",
            target=2,
            at_most=True,
            note=f"both ready after {ready.median:.2f} s; then two sign-ups",
        )
    )


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
