"""The measurements, one function for each group of targets. Each adds to the record.

Still to come, with the features they measure: resume of 10,000 missed messages, a history page out
of a million, throughput with ten million messages stored.
"""

import msgspec

from bench import proc, tool
from bench.connects import ConnectsPlan, ConnectsResult
from bench.durable_commit import CommitPlan, CommitResult
from bench.http_load import HttpPlan, HttpResult
from bench.record import Point, Record, Row, Spread, Throughput, spread
from bench.stage import Options, Stage, say, shares
from bench.start import StartPlan, StartResult
from shared.introspection import INTROSPECT_PATH, TokenPair
from shared.service_auth import ServiceCredentials, load_or_create_secret

__all__ = ["connects", "latency", "profile", "start", "throughput"]

_CLOSED_LOOPS = ((50, 20, 1.0), (50, 1, 0.6), (1, 1, None))
"""Pairs, messages in flight for each, and how many times the relay's throughput is wanted."""
_PEAK = (50, 20)


def throughput(on: Stage, options: Options, record: Record) -> None:
    """Closed loop, relay and Duet in turns."""
    for pairs, window, target in _CLOSED_LOOPS:
        measured = Throughput(pairs=pairs, window=window)
        for repetition in range(options.repetitions):
            say(f"{pairs} pairs x {window}, {repetition + 1} of {options.repetitions}")
            if (pairs, window) == (1, 1):
                plan = CommitPlan(directory=str(on.duet.data_dir))
                measured.commits.append(
                    tool.run("bench.durable_commit", plan, CommitResult, core=tool.SERVER_CORE)
                )
            for server, results in (("relay", measured.relay), ("duet", measured.duet)):
                results.append(on.load(server, pairs=pairs, window=window))
        record.throughput.append(measured)
        _throughput_rows(measured, target, record)


def _throughput_rows(measured: Throughput, target: float | None, record: Record) -> None:
    name = f"{measured.pairs} pairs x {measured.window}"
    for server, results in (("relay", measured.relay), ("Duet", measured.duet)):
        latency_ms = spread(result.ack.p50_us / 1000 for result in results)
        record.rows.append(
            Row(
                what=f"{name}: {server}",
                value=spread(result.messages_per_s for result in results),
                unit="msg/s",
                note=f"ack p50 {latency_ms.median:.3g} ms; {shares(results)}",
            )
        )
    both = list(zip(measured.duet, measured.relay, strict=True))
    record.rows.append(
        Row(
            what=f"{name}: Duet / relay",
            value=spread(d.messages_per_s / r.messages_per_s for d, r in both),
            unit="x",
            target=target,
        )
    )
    if measured.commits:
        in_turn = zip(measured.duet, measured.relay, measured.commits, strict=True)
        commit_us = spread(commit.p50_us for commit in measured.commits).median
        record.rows.append(
            Row(
                what=f"{name}: ack p50 / (commit + relay)",
                value=spread(d.ack.p50_us / (r.ack.p50_us + c.p50_us) for d, r, c in in_turn),
                unit="x",
                target=1.5,
                at_most=True,
                note=f"one durable SQLite commit: {commit_us:.0f} us",
            )
        )


def latency(on: Stage, options: Options, record: Record) -> None:
    """Open loop, at shares of each server's own peak."""
    pairs, window = _PEAK
    closed = next(t for t in record.throughput if (t.pairs, t.window) == _PEAK)
    peaks = {
        "relay": spread(result.messages_per_s for result in closed.relay).median,
        "duet": spread(result.messages_per_s for result in closed.duet).median,
    }
    for share in options.shares_of_peak:
        for server, peak in peaks.items():
            rate = share * peak
            say(f"{server} at {share:.0%} of its peak, {rate:,.0f} msg/s")
            result = on.load(server, pairs=pairs, window=window, rate_per_s=rate)
            record.points.append(
                Point(server=server, share_of_peak=share, rate_per_s=rate, result=result)
            )
    for server, target in (("relay", None), ("duet", 5.0)):
        at_half = [p.result for p in record.points if p.server == server and p.share_of_peak == 0.5]
        record.rows.append(
            Row(
                what=f"ack p99 at half of the peak: {server.replace('duet', 'Duet')}",
                value=spread(result.ack.p99_us / 1000 for result in at_half),
                unit="ms",
                target=target,
                at_most=True,
                note=f"{peaks[server] / 2:,.0f} msg/s; p50 {at_half[0].ack.p50_us / 1000:.3g} ms; "
                f"{shares(at_half)}",
            )
        )


def connects(on: Stage, options: Options, record: Record) -> None:
    """Authenticated connects a second, and the memory of idle connections."""
    tokens = [person.access_token for person in on.people]
    for server, url, pid in (
        ("relay", on.relay.url, on.relay.pid),
        ("duet", on.duet.url, on.duet.gateway_pid),
    ):
        counts = dict.fromkeys((options.connects, options.idle_connections))
        for count in counts:
            say(f"{count:,} connections to {server}")
            plan = ConnectsPlan(
                url=url,
                server_pid=pid,
                companions=[on.duet.profile_pid],
                tokens=tokens,
                connections=count,
            )
            result = tool.run("bench.connects", plan, ConnectsResult)
            record.connects.setdefault(server, []).append(result)
        rate, idle = record.connects[server][0], record.connects[server][-1]
        label = server.replace("duet", "Duet")
        is_duet = server == "duet"
        record.rows += [
            Row(
                what=f"connects, {options.connects:,}: {label}",
                value=_one(rate.connects_per_s),
                unit="/s",
                target=2000 if is_duet else None,
                note=f"server {rate.cpu.server:.0%}, generator {rate.cpu.generator:.0%} of a core"
                + (", the profile service beside the generator" if is_duet else ""),
            ),
            Row(
                what=f"an idle connection of {options.idle_connections:,}: {label}",
                value=_one(idle.bytes_a_connection / 1000),
                unit="kB",
                target=20 if is_duet else None,
                at_most=True,
                note=f"process {idle.server_rss_bytes / 1e6:.0f} MB",
            ),
        ]


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
        result = tool.run("bench.http_load", plan, HttpResult)
        record.profile[name] = [result]
        record.rows.append(
            Row(
                what=name,
                value=_one(result.requests_per_s * each),
                unit="/s",
                target=target,
                note=f"{len(bodies)} connections; p99 {result.p99_us / 1000:.3g} ms; service "
                f"{result.cpu.server:.0%}, generator {result.cpu.generator:.0%} of a core",
            )
        )
    proc.pin(on.duet.profile_pid, tool.GENERATOR_CORE)


def start(options: Options, record: Record) -> None:
    """From `python -m duet` to the first ack. Call it while nothing else runs."""
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


def _one(value: float) -> Spread:
    return Spread(value, value, value)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
