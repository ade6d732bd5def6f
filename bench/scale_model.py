"""What a message costs each part: a line through all runs, so much a transaction, so much itself.

Pure. The same model predicts what cores can carry: docs/scale.md.
"""

import statistics
from collections.abc import Sequence

import msgspec

from bench.scale_load import ScaleResult

__all__ = ["PARTS", "Cost", "Run", "fitted", "predicted_messages_per_s", "table"]

PARTS = ("gateway", "postgres", "nats")
_ALL = (*PARTS, "generator")


class Run(msgspec.Struct, frozen=True):
    """A measurement with so many gateways, and so many messages in flight for each pair."""

    gateways: int
    pairs: int
    window: int
    result: ScaleResult

    @property
    def messages_per_batch(self) -> float:
        """How many messages shared a transaction."""
        return self.result.spent["changes"] / max(1.0, self.result.spent["batches"])

    def per_message(self, name: str) -> float:
        """How much of something a message took."""
        return self.result.spent[name] / self.result.messages


class Cost(msgspec.Struct, frozen=True):
    """Processor seconds."""

    of_batch: float
    of_message: float

    def at(self, messages_per_batch: float) -> float:
        """Of a message, when so many share a transaction."""
        return self.of_batch / messages_per_batch + self.of_message


def fitted(runs: Sequence[Run]) -> dict[str, Cost]:
    """Fit the costs of each part, by least squares."""
    shares = [1 / run.messages_per_batch for run in runs]
    costs = {}
    for name in _ALL:
        line = statistics.linear_regression(shares, [run.per_message(name) for run in runs])
        costs[name] = Cost(of_batch=line.slope, of_message=line.intercept)
    return costs


def predicted_messages_per_s(
    costs: dict[str, Cost], messages_per_batch: float, cores: int
) -> float:
    """What so many cores can carry when all parts share them, the generator too."""
    return cores / sum(cost.at(messages_per_batch) for cost in costs.values())


def table(runs: Sequence[Run], costs: dict[str, Cost], cores: int) -> str:
    """Print the runs and the model beside them, as Markdown."""
    lines = [
        "| gateways | pairs × in flight | msg/s | model | ack p50 / p99 ms "
        "| messages a transaction | gateway µs | PostgreSQL µs | NATS µs | generator µs "
        "| WAL bytes | syncs | NATS msgs |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for run in runs:
        result, batch = run.result, run.messages_per_batch
        micros = " | ".join(f"{run.per_message(name) * 1e6:.0f}" for name in _ALL)
        lines.append(
            f"| {run.gateways} | {run.pairs} × {run.window} "
            f"| {result.messages / result.elapsed_s:,.0f} "
            f"| {predicted_messages_per_s(costs, batch, cores):,.0f} "
            f"| {result.ack.p50_us / 1000:.1f} / {result.ack.p99_us / 1000:.1f} | {batch:.1f} "
            f"| {micros} | {run.per_message('wal_bytes'):,.0f} "
            f"| {run.per_message('wal_syncs'):.3f} | {run.per_message('nats_in'):.2f} |"
        )
    lines += ["", "The model, processor time in µs:", "", "| part | a transaction | a message |"]
    lines.append("|---|---:|---:|")
    for name, cost in costs.items():
        lines.append(f"| {name} | {cost.of_batch * 1e6:.0f} | {cost.of_message * 1e6:.1f} |")
    return "\n".join(lines)
