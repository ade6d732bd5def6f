"""For tests of the profile service: its stores in memory, a clock, and a running service."""

import asyncio
import contextlib
import dataclasses
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec

from profile_service.app import Service, Settings, open_service
from profile_service.errors import UsernameTaken
from profile_service.external_people import ExternalIdentity
from profile_service.ports import (
    AuditEntry,
    Credentials,
    FeedEntry,
    FeedPosition,
    KeysUnusable,
    LiveSession,
    Rotation,
)
from profile_service.rotation import (
    MAX_SESSIONS_PER_USER,
    Decision,
    PresentedRefresh,
    RotationRule,
    Session,
    decide,
)
from profile_service.server import Server, bind
from profile_service.tokens import KeyRing
from profile_service.users import Profile, User, canonical_username
from shared.ids import SessionId, UserId
from shared.revocation import HeldSession, Revocation
from shared.service_auth import ServiceCredentials

__all__ = [
    "PASSWORD",
    "ManualClock",
    "MemorySessionStore",
    "MemoryStorage",
    "MemoryUserStore",
    "RunningService",
    "SpawnedService",
    "UnchangedKeys",
    "bearer",
    "fast_settings",
    "running_service",
    "service_environment",
    "spawned_service",
]

PASSWORD = "correct horse battery"
SERVICE_SECRET = "a secret of the tests, at least 32 bytes"


class ManualClock:
    """Time that passes when a test says so, in seconds since the epoch."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._now = now

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += seconds


@dataclasses.dataclass
class MemoryStorage:
    """What both stores in memory share."""

    users: dict[UserId, User] = dataclasses.field(default_factory=dict)
    hashes: dict[UserId, str] = dataclasses.field(default_factory=dict)
    names: dict[str, UserId] = dataclasses.field(default_factory=dict)
    identities: dict[ExternalIdentity, UserId] = dataclasses.field(default_factory=dict)
    sessions: dict[SessionId, Session] = dataclasses.field(default_factory=dict)
    feed: list[tuple[int, FeedEntry]] = dataclasses.field(default_factory=list)
    audit: list[AuditEntry] = dataclasses.field(default_factory=list)
    epoch: str = dataclasses.field(default_factory=lambda: secrets.token_hex(8))
    positions: int = 0

    def live(self, session_id: SessionId, now_ms: int) -> LiveSession | None:
        session = self.sessions.get(session_id)
        if session is None or session.ended_at_ms is not None or session.expires_at_ms <= now_ms:
            return None
        return LiveSession(session, self.users[session.user_id])

    def change(self, session: Session, **changes: Any) -> Session:
        changed = msgspec.structs.replace(session, **changes)
        self.sessions[session.id] = changed
        return changed

    def end_sessions(self, user_id: UserId, at_ms: int, kept: SessionId | None = None) -> None:
        for session in list(self.sessions.values()):
            ended = session.user_id == user_id and session.id != kept
            if ended and session.ended_at_ms is None:
                self.change(session, ended_at_ms=at_ms)

    def revoke(self, revocation: Revocation, at_ms: int) -> None:
        self.positions += 1
        at = FeedPosition(self.positions, secrets.token_hex(8))
        self.feed.append((at_ms, FeedEntry(at, revocation)))

    def raise_version(self, user_id: UserId) -> User:
        user = self.users[user_id]
        self.users[user_id] = msgspec.structs.replace(user, token_version=user.token_version + 1)
        return self.users[user_id]


class MemoryUserStore:
    """`UserStore` without a database."""

    def __init__(self, storage: MemoryStorage) -> None:
        self._storage = storage

    async def create_user(
        self, user: User, password_hash: str, session: Session, audit: AuditEntry
    ) -> None:
        name = canonical_username(user.username)
        if name in self._storage.names:
            raise UsernameTaken(user.username)
        self._storage.names[name] = user.id
        self._storage.users[user.id] = user
        self._storage.hashes[user.id] = password_hash
        self._storage.sessions[session.id] = session
        self._storage.audit.append(audit)

    async def create_external_user(
        self,
        user: User,
        names: Sequence[str],
        identity: ExternalIdentity,
        session: Session,
        audit: AuditEntry,
    ) -> User | None:
        storage = self._storage
        if identity in storage.identities:
            return None
        free = (name for name in names if canonical_username(name) not in storage.names)
        name = next(free, None)
        if name is None:
            raise UsernameTaken(user.username)
        created = msgspec.structs.replace(user, username=name)
        storage.names[canonical_username(name)] = user.id
        storage.users[user.id] = created
        storage.identities[identity] = user.id
        storage.sessions[session.id] = session
        storage.audit.append(audit)
        return created

    async def user_by_identity(self, identity: ExternalIdentity) -> User | None:
        user_id = self._storage.identities.get(identity)
        return None if user_id is None else self._storage.users.get(user_id)

    async def credentials(self, canonical_username: str) -> Credentials | None:
        user = await self.user_by_name(canonical_username)
        return None if user is None else Credentials(user, self._storage.hashes.get(user.id))

    async def users(self, ids: Sequence[UserId]) -> list[User]:
        return [user for user in map(self._storage.users.get, set(ids)) if user]

    async def deleted_users(self, ids: Sequence[UserId]) -> list[UserId]:
        return [
            user_id
            for user_id in set(ids) & set(self._storage.names.values())
            if user_id not in self._storage.users
        ]

    async def user_by_name(self, canonical_username: str) -> User | None:
        user_id = self._storage.names.get(canonical_username)
        return None if user_id is None else self._storage.users.get(user_id)

    async def users_by_prefix(self, prefix: str, after: str, limit: int) -> list[User]:
        names = sorted(
            name for name in self._storage.names if name.startswith(prefix) and name > after
        )
        found = [self._storage.users.get(self._storage.names[name]) for name in names]
        return [user for user in found if user][:limit]

    async def update_profile(
        self, user_id: UserId, profile: Profile, *, expected_revision: int, now_ms: int
    ) -> User | None:
        user = self._storage.users.get(user_id)
        if user is None or user.revision != expected_revision:
            return None
        self._storage.users[user_id] = msgspec.structs.replace(
            user, profile=profile, updated_at_ms=now_ms, revision=user.revision + 1
        )
        return self._storage.users[user_id]

    async def rehash_password(self, user_id: UserId, old_hash: str, new_hash: str) -> None:
        if self._storage.hashes.get(user_id) == old_hash:
            self._storage.hashes[user_id] = new_hash

    async def change_password(
        self, kept: Session, password_hash: str, *, expected_version: int, audit: AuditEntry
    ) -> LiveSession | None:
        storage = self._storage
        before = storage.live(kept.id, audit.at_ms)
        if before is None or before.user.token_version != expected_version:
            return None
        storage.hashes[kept.user_id] = password_hash
        user = storage.raise_version(kept.user_id)
        storage.end_sessions(kept.user_id, audit.at_ms, kept.id)
        session = storage.change(
            before.session,
            generation=before.session.generation + 1,
            rotated_at_ms=audit.at_ms,
        )
        storage.revoke(
            Revocation(
                "all_sessions",
                user.id,
                token_version=user.token_version,
                kept_session_id=kept.id,
            ),
            audit.at_ms,
        )
        storage.audit.append(audit)
        return LiveSession(session, user)

    async def delete_user(
        self, user_id: UserId, *, expected_version: int, audit: AuditEntry
    ) -> bool:
        storage = self._storage
        user = storage.users.get(user_id)
        if user is None or user.token_version != expected_version:
            return False
        storage.end_sessions(user_id, audit.at_ms)
        del storage.users[user_id]
        storage.hashes.pop(user_id, None)
        storage.identities = {
            identity: owner for identity, owner in storage.identities.items() if owner != user_id
        }
        storage.revoke(Revocation("user_deleted", user_id), audit.at_ms)
        storage.audit.append(audit)
        return True


class MemorySessionStore:
    """`SessionStore` without a database."""

    def __init__(self, storage: MemoryStorage) -> None:
        self._storage = storage

    async def create_session(
        self, session: Session, *, expected_version: int, audit: AuditEntry
    ) -> bool:
        user = self._storage.users.get(session.user_id)
        if user is None or user.token_version != expected_version:
            return False
        self._storage.sessions[session.id] = session
        own = [
            other
            for other in self._storage.sessions.values()
            if other.user_id == session.user_id and other.ended_at_ms is None
        ]
        own.sort(key=lambda other: (other.rotated_at_ms, other.created_at_ms), reverse=True)
        for surplus in own[MAX_SESSIONS_PER_USER:]:
            self._end(surplus, audit.at_ms)
        self._storage.audit.append(audit)
        return True

    async def live_sessions(self, ids: Sequence[SessionId], now_ms: int) -> list[LiveSession]:
        found = (self._storage.live(session_id, now_ms) for session_id in set(ids))
        return [live for live in found if live]

    async def sessions_of(self, user_id: UserId, now_ms: int) -> list[Session]:
        live = await self.live_sessions(list(self._storage.sessions), now_ms)
        own = [found.session for found in live if found.user.id == user_id]
        return sorted(own, key=lambda session: (session.created_at_ms, session.id))

    async def rotate(
        self,
        presented: Sequence[tuple[PresentedRefresh, AuditEntry]],
        *,
        now_ms: int,
        rule: RotationRule,
        expires_at_ms: int,
    ) -> list[Rotation]:
        return [
            self._rotate(token, audit, now_ms, rule, expires_at_ms) for token, audit in presented
        ]

    def _rotate(
        self,
        token: PresentedRefresh,
        audit: AuditEntry,
        now_ms: int,
        rule: RotationRule,
        expires_at_ms: int,
    ) -> Rotation:
        live = self._storage.live(token.session_id, now_ms)
        decision = decide(
            token,
            live.session if live else None,
            live.user.token_version if live else None,
            now_ms=now_ms,
            rule=rule,
        )
        if decision is Decision.REFUSE or live is None:
            return Rotation(Decision.REFUSE, None)
        if row := audit.of(decision, live.user.id):
            self._storage.audit.append(row)
        if decision is Decision.REUSE:
            self._end(live.session, now_ms)
        if not decision.gives_tokens:
            return Rotation(decision, None)
        session = live.session
        if decision is Decision.ROTATE:
            session = self._storage.change(
                session,
                generation=session.generation + 1,
                rotated_at_ms=now_ms,
                expires_at_ms=expires_at_ms,
            )
        return Rotation(decision, LiveSession(session, live.user))

    def _end(self, session: Session, now_ms: int) -> None:
        self._storage.change(session, ended_at_ms=now_ms)
        self._storage.revoke(Revocation("session", session.user_id, session_id=session.id), now_ms)

    async def confirm(self, shown: Sequence[tuple[SessionId, int]]) -> None:
        for session_id, generation in shown:
            session = self._storage.sessions.get(session_id)
            if session is not None:
                confirmed = max(session.confirmed_generation, generation)
                self._storage.change(session, confirmed_generation=confirmed)

    async def end_session(self, user_id: UserId, session_id: SessionId, audit: AuditEntry) -> bool:
        live = self._storage.live(session_id, audit.at_ms)
        if live is None or live.user.id != user_id:
            return False
        self._end(live.session, audit.at_ms)
        self._storage.audit.append(audit)
        return True

    async def end_all_sessions(self, user_id: UserId, audit: AuditEntry) -> None:
        if user_id not in self._storage.users:
            return
        user = self._storage.raise_version(user_id)
        self._storage.end_sessions(user_id, audit.at_ms)
        self._storage.revoke(
            Revocation("all_sessions", user_id, token_version=user.token_version), audit.at_ms
        )
        self._storage.audit.append(audit)

    async def ended(self, held: Sequence[HeldSession], now_ms: int) -> list[SessionId]:
        return [
            session.sid
            for session in held
            if (live := self._storage.live(session.sid, now_ms)) is None
            or live.user.id != session.sub
        ]

    async def feed_end(self) -> FeedPosition:
        if self._storage.feed:
            return self._storage.feed[-1][1].at
        return FeedPosition(0, self._storage.epoch)

    async def feed_has(self, at: FeedPosition) -> bool:
        places = [entry.at for _, entry in self._storage.feed]
        if at.position == 0:
            unpruned = not places or places[0].position == 1
            return at.nonce == self._storage.epoch and unpruned
        return at in places

    async def revocations_after(self, position: int, limit: int) -> list[FeedEntry]:
        later = [entry for _, entry in self._storage.feed if entry.at.position > position]
        return later[:limit]

    async def append_audit(self, entry: AuditEntry) -> None:
        self._storage.audit.append(entry)

    async def prune(self, *, sessions_ms: int, revocations_ms: int, audit_ms: int) -> int:
        storage = self._storage
        before = len(storage.sessions) + len(storage.feed) + len(storage.audit)
        storage.sessions = {
            session.id: session
            for session in storage.sessions.values()
            if session.expires_at_ms >= sessions_ms
        }
        storage.feed = [
            item for item in storage.feed[:-1] if item[0] >= revocations_ms
        ] + storage.feed[-1:]
        storage.audit = [entry for entry in storage.audit if entry.at_ms >= audit_ms]
        return before - len(storage.sessions) - len(storage.feed) - len(storage.audit)

    async def ping(self) -> None:
        return


class UnchangedKeys:
    """`KeySource` with the keys that it was given."""

    def __init__(self, keys: KeyRing) -> None:
        self.keys = keys

    async def load(self) -> KeyRing:
        return self.keys

    async def load_if_changed(self) -> KeyRing | None:
        return None

    async def rotate(self, keep_s: float) -> str:
        raise KeysUnusable("these keys are for ever")


def fast_settings(data_dir: Path, **changes: Any) -> Settings:
    """Settings with a free port, cheap hashing, and limits that no test meets by accident."""
    values: dict[str, Any] = {
        "data_dir": data_dir,
        "service_secret": SERVICE_SECRET,
        "profile_port": 0,
        "argon2_memory_kib": 8,
        "sign_ups_per_address": 100_000,
        "login_attempts_per_address": 100_000,
        "profile_shutdown_timeout_s": 2,
    }
    return Settings(**(values | changes))


def bearer(granted: dict[str, Any]) -> dict[str, str]:
    """The header that goes with an answer of a sign-up, a log-in or a refresh."""
    return {"Authorization": f"Bearer {granted['access_token']}"}


@dataclasses.dataclass
class RunningService:
    """A service on a real socket, and a client for it."""

    service: Service
    client: httpx.AsyncClient
    port: int
    credentials: ServiceCredentials

    @property
    def as_service(self) -> dict[str, str]:
        """The header of one of Duet's own services."""
        return {"Authorization": self.credentials.authorization()}

    async def sign_up(self, username: str | None = None, **fields: Any) -> dict[str, Any]:
        """Sign somebody up; returns the answer with the username."""
        username = username or f"user-{secrets.token_hex(6)}"
        answer = await self.client.post(
            "/v1/users", json={"username": username, "password": PASSWORD, **fields}
        )
        assert answer.status_code == 201, answer.text
        created: dict[str, Any] = answer.json()
        return created

    async def log_in(self, username: str, **fields: Any) -> dict[str, Any]:
        """Log another device of somebody in."""
        answer = await self.client.post(
            "/v1/sessions", json={"username": username, "password": PASSWORD, **fields}
        )
        assert answer.status_code == 201, answer.text
        opened: dict[str, Any] = answer.json()
        return opened

    async def introspect(self, *pairs: dict[str, str]) -> list[dict[str, Any]]:
        """Verify token pairs as another service does."""
        answer = await self.client.post(
            "/internal/introspect", json=list(pairs), headers=self.as_service
        )
        assert answer.status_code == 200, answer.text
        verified: list[dict[str, Any]] = answer.json()
        return verified


@contextlib.asynccontextmanager
async def running_service(
    settings: Settings, *, clock: ManualClock | None = None
) -> AsyncIterator[RunningService]:
    """Run the service in this process, on a real socket and real files."""
    now = {} if clock is None else {"now": clock}
    both = {} if clock is None else {"now": clock, "monotonic": clock}
    async with open_service(settings, **both) as service:
        listener = bind("127.0.0.1", 0)
        port = listener.getsockname()[1]
        server = Server(
            service.application,
            trusted_proxies=settings.profile_trusted_proxies,
            shutdown_timeout_s=settings.profile_shutdown_timeout_s,
            before_shutdown=service.feed.close,
        )
        serving = asyncio.create_task(server.serve([listener]))
        credentials = ServiceCredentials(settings.shared_secret(), "test", **now)
        client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30)
        try:
            async with client:
                yield RunningService(service, client, port, credentials)
        finally:
            server.should_exit = True
            await serving
            listener.close()


class SpawnedService:
    """A service in a process of its own. It logs JSON; `log` holds the lines so far."""

    def __init__(self, data_dir: Path, **changes: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "profile_service"],
            env=service_environment(data_dir, **changes),
            stderr=subprocess.PIPE,
            text=True,
        )
        self.credentials = ServiceCredentials(SERVICE_SECRET.encode(), "test")
        self.log: list[str] = []
        self._logged = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return str(self.wait_for("listening")["url"])

    def wait_for(self, event: str, timeout_s: float = 20) -> dict[str, Any]:
        """Return the log line of that event, now or when it comes."""

        def find() -> dict[str, Any] | None:
            lines = (json.loads(line) for line in self.log if line.startswith("{"))
            return next((line for line in lines if line["event"] == event), None)

        with self._logged:
            found = self._logged.wait_for(find, timeout_s)
        assert found, f"no {event!r} in the log: {self.log}"
        return found

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit status, when the log is complete."""
        self.process.send_signal(number)
        status = self.process.wait(30)
        self._reader.join()
        return status

    def close(self) -> None:
        """Kill it if it is still there."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._logged:
                self.log.append(line)
                self._logged.notify_all()


@contextlib.contextmanager
def spawned_service(data_dir: Path, **changes: str) -> Iterator[SpawnedService]:
    """Run `python -m profile_service` until it listens, and at most to the end of the block."""
    service = SpawnedService(data_dir, **changes)
    try:
        service.wait_for("listening")
        yield service
    finally:
        service.close()


def service_environment(data_dir: Path, **changes: str) -> dict[str, str]:
    """The environment of a service process: `fast_settings` as variables."""
    inherited = {name: value for name, value in os.environ.items() if name[:5] != "DUET_"}
    return inherited | {
        "DUET_DATA_DIR": str(data_dir),
        "DUET_SERVICE_SECRET": SERVICE_SECRET,
        "DUET_PROFILE_PORT": "0",
        "DUET_ARGON2_MEMORY_KIB": "8",
        "DUET_SIGN_UPS_PER_ADDRESS": "100000",
        "DUET_LOGIN_ATTEMPTS_PER_ADDRESS": "100000",
        "DUET_LOG_FORMAT": "json",
        **changes,
    }
