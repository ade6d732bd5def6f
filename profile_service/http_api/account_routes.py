"""Routes about people: sign up, the own profile, other people's."""

import msgspec
from starlette.responses import Response

from profile_service.accounts import Accounts
from profile_service.errors import Fault, ValidationFailed
from profile_service.external_accounts import ExternalAccounts
from profile_service.http_api.bodies import (
    AccessGrant,
    ChangePassword,
    DeleteAccount,
    OwnProfile,
    PrefixQuery,
    PublicProfile,
    PublicProfiles,
    ReplaceProfile,
    SignUp,
    TokenGrant,
)
from profile_service.http_api.conditional import entity_tag, expected_revisions, is_unmodified
from profile_service.http_api.operation import (
    JSON,
    MERGE_PATCH,
    Auth,
    Call,
    Operation,
    json_response,
)
from profile_service.http_api.problems import ProblemError
from profile_service.profiles import Profiles
from profile_service.records import Client, LoggedIn
from profile_service.users import ProfilePatch, User

__all__ = ["AccountRoutes", "client_of", "granted", "set_up"]

_ETAG = {"ETag": "Names this revision of the profile; send it back as `If-Match`."}
_IF_MATCH = {"If-Match": "Change the profile only if it still has this `ETag`."}


class AccountRoutes:
    """Handlers of `/v1/users`."""

    def __init__(
        self, accounts: Accounts, profiles: Profiles, external: ExternalAccounts | None
    ) -> None:
        self._accounts = accounts
        self._external = external
        self._profiles = profiles

    def operations(self) -> list[Operation]:
        """The rows of the route table; `me` comes before the names."""
        return [*self._of_people(), *self._of_own_profile(), *self._of_account(), *self._by_name()]

    def _of_people(self) -> list[Operation]:
        return [
            Operation(
                method="POST",
                path="/v1/users",
                summary="Sign up: create a user and log in this device.",
                handler=self.sign_up,
                body=SignUp,
                replies={201: AccessGrant},
                reply_headers={"Location": "Where the public profile is.", **_ETAG},
                problems=("sign_up_closed", "username_taken", "too_many_attempts", "overloaded"),
            ),
            Operation(
                method="GET",
                path="/v1/users",
                summary="Find users by how their names begin.",
                handler=self.find,
                auth=Auth.BEARER,
                query=PrefixQuery,
                replies={200: PublicProfiles},
            ),
        ]

    def _of_own_profile(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/v1/users/me",
                summary="Read the own profile.",
                handler=self.read_own,
                auth=Auth.BEARER,
                replies={200: OwnProfile, 304: None},
                request_headers={"If-None-Match": "Answer 304 if it still has this `ETag`."},
                reply_headers=_ETAG,
            ),
            Operation(
                method="PATCH",
                path="/v1/users/me",
                summary="Change fields of the own profile (RFC 7396): null clears one.",
                handler=self.patch_own,
                auth=Auth.BEARER,
                body=ProfilePatch,
                body_types=(MERGE_PATCH, JSON),
                replies={200: OwnProfile},
                request_headers=_IF_MATCH,
                reply_headers=_ETAG,
                problems=("precondition_failed",),
            ),
            Operation(
                method="PUT",
                path="/v1/users/me",
                summary="Replace the own profile: what is absent is cleared.",
                handler=self.replace_own,
                auth=Auth.BEARER,
                body=ReplaceProfile,
                replies={200: OwnProfile},
                request_headers=_IF_MATCH,
                reply_headers=_ETAG,
                problems=("precondition_failed",),
            ),
        ]

    def _of_account(self) -> list[Operation]:
        return [
            Operation(
                method="DELETE",
                path="/v1/users/me",
                summary="Delete the account, for good. Its name is never given to anybody else.",
                handler=self.delete_own,
                auth=Auth.BEARER,
                body=DeleteAccount,
                replies={204: None},
                problems=(
                    "wrong_password",
                    "no_password",
                    "invalid_external_token",
                    "external_sign_in_off",
                    "too_many_attempts",
                    "overloaded",
                    "identity_provider_unavailable",
                ),
            ),
            Operation(
                method="PUT",
                path="/v1/users/me/password",
                summary="Change the password; every other device is logged out.",
                handler=self.change_password,
                auth=Auth.BEARER,
                body=ChangePassword,
                replies={200: TokenGrant},
                problems=("wrong_password", "no_password", "too_many_attempts", "overloaded"),
            ),
        ]

    def _by_name(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/v1/users/{username}",
                summary="Read somebody's public profile, by name in upper or lower case.",
                handler=self.read,
                auth=Auth.BEARER,
                replies={200: PublicProfile},
                problems=("user_not_found",),
            ),
        ]

    async def sign_up(self, call: Call) -> Response:
        body: SignUp = call.body
        created = await self._accounts.sign_up(
            body.username, body.password, body.profile(), body.device_name, client_of(call)
        )
        headers = {
            "Location": f"/v1/users/{created.user.username}",
            "ETag": entity_tag(created.user),
        }
        return json_response(granted(created), 201, headers)

    async def find(self, call: Call) -> Response:
        query: PrefixQuery = call.query
        found = await self._profiles.by_prefix(query.prefix, query.after, query.limit + 1)
        page = found[: query.limit]
        following = page[-1].username if len(found) > query.limit else None
        return json_response(
            PublicProfiles(users=[PublicProfile.of(user) for user in page], next=following)
        )

    async def read_own(self, call: Call) -> Response:
        user = call.caller.user
        if is_unmodified(call.request.headers.get("if-none-match"), user):
            return Response(status_code=304, headers={"ETag": entity_tag(user)})
        return _own(user)

    async def patch_own(self, call: Call) -> Response:
        return _own(await self._profiles.patch(call.caller, call.body, _revisions(call)))

    async def replace_own(self, call: Call) -> Response:
        body: ReplaceProfile = call.body
        return _own(await self._profiles.replace(call.caller, body.profile(), _revisions(call)))

    async def change_password(self, call: Call) -> Response:
        body: ChangePassword = call.body
        changed = await self._accounts.change_password(
            call.caller, body.current_password, body.new_password, client_of(call)
        )
        return json_response(TokenGrant.of(changed.tokens, changed.session.id))

    async def delete_own(self, call: Call) -> Response:
        body: DeleteAccount = call.body
        client = client_of(call)
        if body.password is not None and body.external_token is None:
            await self._accounts.delete(call.caller, body.password, client)
        elif body.external_token is not None and body.password is None:
            await set_up(self._external).delete(call.caller, body.external_token, client)
        else:
            raise ValidationFailed([Fault("", "send either password or external_token")])
        return Response(status_code=204)

    async def read(self, call: Call) -> Response:
        user = await self._profiles.by_name(call.request.path_params["username"])
        return json_response(PublicProfile.of(user))


def client_of(call: Call) -> Client:
    """Tell where a request comes from."""
    return Client(call.address, call.request.headers.get("user-agent"))


def set_up(external: ExternalAccounts | None) -> ExternalAccounts:
    """Return what exchanges tokens of an identity provider.

    Raises:
        ProblemError: no provider is set up.
    """
    if external is None:
        raise ProblemError(
            "external_sign_in_off",
            "Whoever runs this service sets DUET_EXTERNAL_ISSUER and what goes with it.",
        )
    return external


def granted(logged_in: LoggedIn) -> AccessGrant:
    """Answer a sign-up or a log-in."""
    tokens = TokenGrant.of(logged_in.tokens, logged_in.session.id)
    return AccessGrant(**msgspec.structs.asdict(tokens), user=OwnProfile.of(logged_in.user))


def _own(user: User) -> Response:
    return json_response(OwnProfile.of(user), headers={"ETag": entity_tag(user)})


def _revisions(call: Call) -> frozenset[int] | None:
    return expected_revisions(call.request.headers.get("if-match"))
