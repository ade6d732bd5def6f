"""What the gateway measures, for Prometheus.

Hot paths count once for each batch, never for each message; gauges are read when scraped.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ws_gateway.protocol.errors import CloseCode

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_ABNORMAL = 1006
_KNOWN_CLOSES = frozenset([*CloseCode, 1002])
_FAST_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
_BATCH = (1, 2, 5, 10, 20, 50, 100, 200, 512)


class Metrics:
    """The gateway's own registry: several gateways in one process, as in tests, do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.connects = self._counter(
            "duet_gateway_connects_total",
            "Connections by the verdict on their tokens.",
            "verdict",
        )
        self.closes = self._counter(
            "duet_gateway_closes_total", "Connections that ended, by close code.", "code"
        )
        self.evictions = self._counter(
            "duet_gateway_evictions_total", "Connections closed for a newer one of their user."
        )
        self.revoked = self._counter(
            "duet_gateway_revoked_connections_total", "Connections closed for an ended session."
        )
        self.slow_readers = self._counter(
            "duet_gateway_outbox_aborts_total",
            "Connections aborted because their reader fell behind.",
        )
        changes = self._counter(
            "duet_gateway_changes_total",
            "Messages, edits and deletions by outcome: stored, duplicate, refused, failed.",
            "outcome",
        )
        self.changes = {
            outcome: changes.labels(outcome)
            for outcome in ("stored", "duplicate", "refused", "failed")
        }
        self.batch_size = Histogram(
            "duet_gateway_commit_batch_messages",
            "Messages in one transaction.",
            buckets=_BATCH,
            registry=self.registry,
        )
        self.commit_seconds = Histogram(
            "duet_gateway_commit_seconds",
            "Time of one transaction.",
            buckets=_FAST_S,
            registry=self.registry,
        )
        self.ack_seconds = Histogram(
            "duet_gateway_ack_seconds",
            "Time from a message's arrival to its ack; once a batch, for its oldest message.",
            buckets=_FAST_S,
            registry=self.registry,
        )
        self.profile_call_seconds = Histogram(
            "duet_gateway_profile_call_seconds",
            "Time of one call to the profile service.",
            ("call",),
            buckets=_FAST_S,
            registry=self.registry,
        )
        self.feed_connected = Gauge(
            "duet_gateway_revocation_feed_connected",
            "1 while the revocation feed is connected.",
            registry=self.registry,
        )

        self.bus_dropped = self._counter(
            "duet_gateway_bus_dropped_total",
            "Notices to other gateways that were dropped; they look at the store instead.",
        )
        self.healed = self._counter(
            "duet_gateway_healed_events_total",
            "Events that were read from the store because the bus did not bring them.",
        )

    def closed(self, code: int | None) -> None:
        """Count a connection that ended; clients must not make up label values."""
        known = code if code is None or code in _KNOWN_CLOSES else "other"
        self.closes.labels(str(known or _ABNORMAL)).inc()

    def gauge(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """Publish a value that is read at each scrape."""
        Gauge(name, documentation, registry=self.registry).set_function(read)

    def exposition(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(name, documentation, labels, registry=self.registry)
