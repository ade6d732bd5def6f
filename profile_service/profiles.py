"""Profiles: find people, and change what one tells about oneself."""

from collections.abc import Callable, Sequence

from profile_service.errors import (
    InvalidAccessToken,
    RevisionMismatch,
    UserNotFound,
    ValidationFailed,
)
from profile_service.ports import UserStore
from profile_service.sessions import Caller
from profile_service.users import (
    Profile,
    ProfilePatch,
    User,
    canonical_username,
    check_profile,
    merge,
)
from shared.ids import UserId

__all__ = ["Profiles"]


class Profiles:
    """The use cases of profiles. Any coroutine may call it.

    `now_ms` gives milliseconds since the epoch.
    """

    def __init__(self, users: UserStore, *, now_ms: Callable[[], int]) -> None:
        self._users = users
        self._now_ms = now_ms

    async def replace(
        self, caller: Caller, profile: Profile, revisions: frozenset[int] | None
    ) -> User:
        """Set the whole profile; `revisions`, if given, are those that may be overwritten.

        Raises:
            ValidationFailed: some fields are unusable.
            RevisionMismatch: the profile has another revision.
            InvalidAccessToken: the account went meanwhile.
        """
        return await self._change(caller, lambda _: profile, revisions)

    async def patch(
        self, caller: Caller, patch: ProfilePatch, revisions: frozenset[int] | None
    ) -> User:
        """Change some fields; otherwise like `replace`, with the same errors."""
        return await self._change(caller, lambda profile: merge(profile, patch), revisions)

    async def by_name(self, username: str) -> User:
        """Find a user by name, in any spelling of upper and lower case.

        Raises:
            UserNotFound: there is none.
        """
        user = await self._users.user_by_name(canonical_username(username))
        if user is None:
            raise UserNotFound(username)
        return user

    async def by_ids(self, ids: Sequence[UserId]) -> list[User]:
        """Return those of the users that exist, in no order."""
        return await self._users.users(ids)

    async def deleted_among(self, ids: Sequence[UserId]) -> list[UserId]:
        """Return those of the users that deleted their account, in no order."""
        return await self._users.deleted_users(ids)

    async def by_prefix(self, prefix: str, after: str, limit: int) -> list[User]:
        """Return users whose names begin so, sorted, from the first one after `after`."""
        return await self._users.users_by_prefix(
            canonical_username(prefix), canonical_username(after), limit
        )

    async def _change(
        self,
        caller: Caller,
        change: Callable[[Profile], Profile],
        revisions: frozenset[int] | None,
    ) -> User:
        user: User | None = caller.user
        while user is not None:
            if revisions is not None and user.revision not in revisions:
                raise RevisionMismatch
            profile = change(user.profile)
            if faults := list(check_profile(profile)):
                raise ValidationFailed(faults)
            changed = await self._users.update_profile(
                user.id, profile, expected_revision=user.revision, now_ms=self._now_ms()
            )
            if changed is not None:
                return changed
            # Somebody else was first: look again. Each turn means that another change went through.
            user = next(iter(await self._users.users([user.id])), None)
        raise InvalidAccessToken("the account is gone")
