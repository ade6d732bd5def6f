"""What the service counts about itself, for Prometheus. One instance a service, no globals."""

import functools
from collections.abc import Callable
from typing import Literal

import prometheus_client

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_PLAIN_0_0_4

_LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class Metrics:
    """The service's counters. Labels have few values: route templates, never paths or names."""

    def __init__(self) -> None:
        self._registry = prometheus_client.CollectorRegistry()
        self._requests = self._counter(
            "http_requests", "Requests answered.", "method", "route", "status"
        )
        self._latency = prometheus_client.Histogram(
            "duet_profile_http_request_duration_seconds",
            "From the request's arrival to the end of its answer, streams excepted.",
            ["method", "route"],
            registry=self._registry,
            buckets=_LATENCY_BUCKETS_S,
        )
        # `labels` costs as much as counting, and there are few combinations
        self._requests_by = functools.cache(self._requests.labels)
        self._latency_by = functools.cache(self._latency.labels)
        self._sign_ups = self._counter("sign_ups", "Users created.")
        self._logins = self._counter("logins", "Passwords checked at log-in.", "outcome")
        self._external_sign_ins = self._counter(
            "external_sign_ins", "Tokens of the identity provider presented.", "outcome"
        )
        self._external_key_fetches = self._counter(
            "external_key_fetches", "Times the identity provider was asked for its keys.", "outcome"
        )
        self._refreshes = self._counter("refreshes", "Refresh tokens presented.", "outcome")
        introspections = self._counter("introspections", "Token pairs verified.", "active")
        self._active, self._inactive = introspections.labels("true"), introspections.labels("false")
        self._throttled = self._counter("throttled", "Attempts refused unexamined.", "limit")
        self._overloaded = self._counter("overloaded", "Requests refused: too much was waiting.")
        self._errors = self._counter("unhandled_errors", "Requests that met a bug.")
        self._followers = prometheus_client.Gauge(
            "duet_profile_revocation_feed_followers",
            "Services that follow the revocation feed.",
            registry=self._registry,
        )

    def watch_hashing(self, pending: Callable[[], int]) -> None:
        """Show how many passwords are being hashed or wait for it."""
        gauge = prometheus_client.Gauge(
            "duet_profile_password_hashes_pending",
            "Passwords being hashed or waiting for it.",
            registry=self._registry,
        )
        gauge.set_function(pending)

    def requested(self, method: str, route: str, status: int, duration_s: float | None) -> None:
        """Count an answered request; `duration_s` is None for a stream."""
        self._requests_by(method, route, status).inc()
        if duration_s is not None:
            self._latency_by(method, route).observe(duration_s)

    def signed_up(self) -> None:
        """Count a new user."""
        self._sign_ups.inc()

    def logged_in(self, *, succeeded: bool) -> None:
        """Count a checked password."""
        self._logins.labels("ok" if succeeded else "failed").inc()

    def signed_in_externally(
        self, outcome: Literal["created", "known", "refused", "unavailable"]
    ) -> None:
        """Count a presented token of the identity provider."""
        self._external_sign_ins.labels(outcome).inc()

    def fetched_external_keys(self, *, succeeded: bool) -> None:
        """Count an attempt to get the identity provider's keys."""
        self._external_key_fetches.labels("ok" if succeeded else "failed").inc()

    def refreshed(self, outcome: str) -> None:
        """Count a presented refresh token."""
        self._refreshes.labels(outcome).inc()

    def introspected(self, active: int, inactive: int) -> None:
        """Count verified token pairs."""
        self._active.inc(active)
        self._inactive.inc(inactive)

    def throttled(self, limit: str) -> None:
        """Count an attempt over one of the limits."""
        self._throttled.labels(limit).inc()

    def overloaded(self) -> None:
        """Count a request that found too much waiting."""
        self._overloaded.inc()

    def met_a_bug(self) -> None:
        """Count a request that raised something nobody expected."""
        self._errors.inc()

    def following(self, change: int) -> None:
        """Count followers of the revocation feed up or down."""
        self._followers.inc(change)

    def render(self) -> bytes:
        """Write everything in Prometheus' text format."""
        return prometheus_client.generate_latest(self._registry)

    def _counter(self, name: str, description: str, *labels: str) -> prometheus_client.Counter:
        return prometheus_client.Counter(
            f"duet_profile_{name}", description, labels, registry=self._registry
        )
