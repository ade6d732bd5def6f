"""Measurements with messages, one function for each group of targets; each adds to the record."""

from bench import proc, tool
from bench.durable_commit import CommitPlan, CommitResult
from bench.filled import data_directory, log_in
from bench.load import LoadResult
from bench.past import PastPlan, PastResult
from bench.people import Person, sign_up
from bench.record import Point, Record, Row, Throughput, exactly, spread
from bench.stage import Options, Stage, say, shares, stage

__all__ = ["filled", "latency", "past", "past_result", "throughput"]

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
    name = _loop(measured)
    for server, results in (("relay", measured.relay), ("Duet", measured.duet)):
        p50_ms = spread(result.ack.p50_us / 1000 for result in results).median
        p99_ms = spread(result.ack.p99_us / 1000 for result in results).median
        record.rows.append(
            Row(
                what=f"{name}: {server}",
                value=spread(result.messages_per_s for result in results),
                unit="msg/s",
                note=f"ack p50 {p50_ms:.3g}, p99 {p99_ms:.3g} ms; {shares(results)}",
            )
        )
    record.rows.append(
        Row(
            what=f"{name}: Duet / relay",
            value=spread(_ratios(measured)),
            unit="x",
            target=target,
            note=f"for each CPU second {spread(_ratios_for_cpu(measured)).median:.2f} x",
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


def _loop(measured: Throughput) -> str:
    return f"{measured.pairs} pair{'' if measured.pairs == 1 else 's'} x {measured.window}"


def latency(on: Stage, options: Options, record: Record) -> None:
    """Open loop, at shares of each server's own peak."""
    peaks = {server: _peak(on, server, record) for server in ("relay", "duet")}
    for share in options.shares_of_peak:
        for server, peak in peaks.items():
            for _ in range(options.repetitions if (share, server) == (0.5, "duet") else 1):
                _add_point(on, record, server, share, share * peak)
    if 0.5 not in options.shares_of_peak:
        return
    for server, name, target in (("relay", "relay", None), ("duet", "Duet", 5.0)):
        at_half = [p.result for p in record.points if (p.server, p.share_of_peak) == (server, 0.5)]
        _latency_row(f"half of the peak: {name}", peaks[server] / 2, at_half, target, record)
    pairs, window = _PEAK
    for server, other, what in (
        ("relay", "duet", "half of Duet's peak: relay"),
        ("duet", "relay", "half of the relay's peak: Duet"),
    ):
        say(f"ack p99 at {what}")
        rate = peaks[other] / 2
        results = [
            on.load(server, pairs=pairs, window=window, rate_per_s=rate)
            for _ in range(options.repetitions)
        ]
        _latency_row(what, rate, results, None, record)


def _latency_row(
    at: str, rate: float, results: list[LoadResult], target: float | None, record: Record
) -> None:
    if results:
        record.rows.append(
            Row(
                what=f"ack p99 at {at}",
                value=spread(result.ack.p99_us / 1000 for result in results),
                unit="ms",
                target=target,
                at_most=True,
                note=f"{rate:,.0f} msg/s; p50 {results[0].ack.p50_us / 1000:.3g} ms; "
                f"{shares(results)}",
            )
        )


def _add_point(on: Stage, record: Record, server: str, share: float, rate: float) -> None:
    pairs, window = _PEAK
    say(f"{server} at {share:.0%} of its peak, {rate:,.0f} msg/s")
    try:
        result = on.load(server, pairs=pairs, window=window, rate_per_s=rate)
    except RuntimeError as error:
        if '"overloaded"' not in str(error):
            raise
        record.warnings.append(f"{server} was overloaded at {share:.0%} of its peak")
        return
    record.points.append(Point(server=server, share_of_peak=share, rate_per_s=rate, result=result))


def _peak(on: Stage, server: str, record: Record) -> float:
    """Messages a second in the closed loop, measured now when it was not before."""
    pairs, window = _PEAK
    for measured in record.throughput:
        if (measured.pairs, measured.window) == _PEAK:
            results = measured.duet if server == "duet" else measured.relay
            return spread(result.messages_per_s for result in results).median
    return on.load(server, pairs=pairs, window=window).messages_per_s


def past(on: Stage, options: Options, record: Record) -> None:
    """Catching up; paging through a long conversation, and throughput beside it."""
    caught_up = past_result(on, options.missed_messages, resume=True)
    record.past.append(caught_up)
    record.rows.append(_resume_row(f"resume of {options.missed_messages:,} messages", caught_up))
    if options.filled is not None:
        return
    say(f"a conversation of {options.history_messages:,} messages")
    paged = past_result(on, options.history_messages, pages=options.history_pages)
    record.past.append(paged)
    record.rows.append(_history_row(options.history_messages, paged))
    _throughput_beside(
        on, options, record, f"{options.history_messages:,} more stored / before", None
    )


def filled(options: Options, record: Record) -> None:
    """The same with millions of messages stored, which is why it has a stage of its own."""
    if options.filled is None:
        return
    directory, made = data_directory(options.filled, options.stored_messages)
    with stage(options, record, options.directory, filled=directory) as on:
        stored = f"{options.stored_messages:,} stored"
        say(f"history and resume with {stored}")
        length = made.longest
        people = [log_in(on.duet.profile_url, account) for account in made.long[length]]
        proc.forget_files(directory)
        cold = past_result(on, length, people, pages=options.history_pages // 10)
        proc.read_files(directory)
        paged = past_result(on, length, people, pages=options.history_pages)
        caught_up = past_result(on, options.missed_messages, resume=True)
        record.past += [cold, paged, caught_up]
        resumed = f"resume of {options.missed_messages:,} messages, {stored}"
        record.rows += [
            _history_row(length, paged),
            _history_row(length, cold, from_disk=True),
            _resume_row(resumed, caught_up),
        ]
        _throughput_beside(on, options, record, f"{stored} / empty", 0.8)


def _resume_row(what: str, result: PastResult) -> Row:
    """How long it took to catch up."""
    return Row(
        what=what,
        value=exactly(result.resume_s),
        unit="s",
        target=0.5,
        at_most=True,
        note=f"the gateway grew by {result.rss_growth_bytes / 1e6:.1f} MB",
    )


def _history_row(messages: int, result: PastResult, *, from_disk: bool = False) -> Row:
    """How long a page took. The target is meant for a million messages, whose file the kernel has
    in memory: how fast the disk is says a row of its own."""
    return Row(
        what=f"history page, 50 of {messages:,}{', from the disk' if from_disk else ''}: p99",
        value=exactly(result.page_p99_us / 1000),
        unit="ms",
        target=None if from_disk else 2,
        at_most=True,
        note=f"p50 {result.page_p50_us / 1000:.2f} ms; one at a time",
    )


def _throughput_beside(
    on: Stage, options: Options, record: Record, what: str, target: float | None
) -> None:
    """Compare with the empty database by way of the relay, which does not change."""
    pairs, window = _PEAK
    empty = next((t for t in record.throughput if (t.pairs, t.window) == _PEAK), None)
    if empty is None:
        return
    full = Throughput(pairs=pairs, window=window)
    for _ in range(options.repetitions):
        full.relay.append(on.load("relay", pairs=pairs, window=window))
        full.duet.append(on.load("duet", pairs=pairs, window=window))
    before = spread(_ratios(empty)).median
    record.throughput.append(full)
    record.rows.append(
        Row(
            what=f"{pairs} pairs x {window} with {what}",
            value=spread(ratio / before for ratio in _ratios(full)),
            unit="x",
            target=target,
            note=f"{spread(r.messages_per_s for r in full.duet).median:,.0f} msg/s; "
            f"{shares(full.duet)}",
        )
    )


def past_result(
    on: Stage,
    messages: int,
    people: list[Person] | None = None,
    *,
    resume: bool = False,
    pages: int = 0,
) -> PastResult:
    """Measure in the conversation of two people who have it already, or in a new one."""
    sender, recipient = people or sign_up(on.duet.profile_url, 2)
    plan = PastPlan(
        url=on.duet.url,
        server_pid=on.duet.gateway_pid,
        sender_token=sender.access_token,
        recipient_token=recipient.access_token,
        sender_id=sender.user_id,
        recipient_id=recipient.user_id,
        messages=messages,
        write=people is None,
        resume=resume,
        pages=pages,
    )
    on.wait_for_quiet()
    return tool.run("bench.past", plan, PastResult)


def _ratios(measured: Throughput) -> list[float]:
    return [
        duet.messages_per_s / relay.messages_per_s
        for duet, relay in zip(measured.duet, measured.relay, strict=True)
    ]


def _ratios_for_cpu(measured: Throughput) -> list[float]:
    """Messages for each second of the server's processor: steady when others use the machine."""
    return [
        (duet.messages_per_s / duet.cpu.server) / (relay.messages_per_s / relay.cpu.server)
        for duet, relay in zip(measured.duet, measured.relay, strict=True)
    ]
