"""Rules of who may call what: services, users, owners."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from google.protobuf.descriptor import FieldDescriptor

from paymesh.mesh.v1 import policy_pb2
from services.contract.lint.view import EDGE, callers_of, room_of
from services.contract.options import http_of

if TYPE_CHECKING:
    from services.contract.lint.view import Said, View

_OF_A_USER = {policy_pb2.AUTH_USER, policy_pb2.AUTH_SCOPES}
_SCOPE = re.compile(r"\b[a-z]+:[a-z]+\b")


def auth(view: View) -> Said:
    """Every method says whom it is for; until then it is for nobody."""
    for method, policy in view.methods():
        if not policy.auth:
            yield method, "is for nobody; write `auth: AUTH_USER`, AUTH_SCOPES, AUTH_PUBLIC or AUTH_INTERNAL"
        if policy.auth == policy_pb2.AUTH_INTERNAL and http_of(method):
            yield method, "is internal; write no `google.api.http`, for the edge has no route to it"


def scopes(view: View) -> Said:
    """A method that asks for scopes says which, in words of one form; others ask for none."""
    for method, policy in view.methods():
        by_scopes, room = policy.auth == policy_pb2.AUTH_SCOPES, room_of(method.containing_service.file)
        if by_scopes and not policy.scopes:
            yield method, f'asks for scopes and names none; write `scopes: "{room}:read"`'
        if policy.scopes and not by_scopes:
            yield method, "names scopes that nobody asks for; write `auth: AUTH_SCOPES`"
        for scope in (*policy.scopes, *filter(None, [policy.owner.lifted_by])):
            if not _SCOPE.fullmatch(scope):
                yield method, f'names the scope {scope!r}; write it as "{room}:read": what, and what may be done'


def callers(view: View) -> Said:
    """A method of a service with several callers says which of them it is for, and only those can be connected."""
    for method, policy in view.methods():
        of_service = method.containing_service.GetOptions().Extensions[policy_pb2.service].callers
        if len(of_service) > 1 and not policy.callers:
            yield (
                method,
                f'leaves it open who calls it; write which of {", ".join(of_service)}: `callers: "{of_service[0]}"`',
            )
        for caller in policy.callers:
            if caller not in of_service:
                yield method, f'lets {caller} in, which its service does not; write `callers: "{caller}"` there too'
        at_edge, internal = EDGE in callers_of(method), policy.auth == policy_pb2.AUTH_INTERNAL
        if internal and at_edge:
            yield method, "is internal, and its callers name the edge; write the services that call it"
        if not at_edge and not internal and (http_of(method) or policy.auth == policy_pb2.AUTH_PUBLIC):
            yield method, 'is for clients, and none reaches it; write `callers: "edge"`'


def callers_of_services(view: View) -> Said:
    """A service names callers that exist, and each of them may call something."""
    known = {policy.name for _, policy in view.services()} | {EDGE}
    for service, policy in view.services():
        let_in = {caller for method in service.methods for caller in callers_of(method)}
        if not policy.callers:
            yield service, 'may be called by nobody; write `callers: "edge"`, or the services that call it'
        for caller in policy.callers:
            if caller not in known:
                yield service, f"lets {caller} in, which is no service; write one of {', '.join(sorted(known))}"
            if caller not in let_in:
                yield (
                    service,
                    f"connects {caller}, and no method lets it in; write it at the method it calls, or nowhere",
                )


def on_behalf(view: View) -> Said:
    """A caller of what is a user's may bring the user along, and nobody else may."""
    for service, policy in view.services():
        asked = {method: callers_of(method) for method, said in view.methods() if said.auth in _OF_A_USER}
        needed = {c for method, named in asked.items() if method.containing_service is service for c in named} - {EDGE}
        for caller in sorted(needed - set(policy.on_behalf)):
            yield service, f'asks {caller} for a user that it may not pass on; write `on_behalf: "{caller}"`'
        for caller in policy.on_behalf:
            if caller not in needed:
                yield (
                    service,
                    f"lets {caller} speak for users, and no method of a user lets it in; write no `on_behalf`",
                )


def owner(view: View) -> Said:
    """A method for users says whose data it reaches: by a field of the request, or by the use case's own query."""
    for method, policy in view.methods():
        for_users, stated = policy.auth == policy_pb2.AUTH_USER, policy.HasField("owner")
        if for_users and not policy.owner.WhichOneof("where"):
            named = next((f.name for f in method.input_type.fields if f.name in {"user_id", "id"}), "user_id")
            yield (
                method,
                (
                    f'does not say whose data it reaches; write `owner: {{field: "{named}"}}` where the request names the '
                    "user, or `owner: {resource: true}` where the use case looks for the caller's own"
                ),
            )
        if stated and policy.auth and not for_users:
            yield method, "has an owner and is not for one user; write `auth: AUTH_USER`, or no `owner`"
        field = method.input_type.fields_by_name.get(policy.owner.field)
        if policy.owner.field and (field is None or field.type != FieldDescriptor.TYPE_INT64):
            yield (
                method,
                f"is owned by {policy.owner.field}, no id of the request; write the int64 field with the user's",
            )


def scopes_in_comments(view: View) -> Said:
    """What the comment promises to a scope is what the policy gives, and a rule that a scope lifts is told of."""
    for method, policy in view.methods():
        told, lifted = set(_SCOPE.findall(view.comment(method))), policy.owner.lifted_by
        for scope in sorted(told - {*policy.scopes, lifted}):
            yield method, f'promises something to {scope}; write `lifted_by: "{scope}"`, or take the promise out'
        if lifted and lifted not in told:
            yield method, f'write in its comment "or any with the scope {lifted}": who may reach what others own'


def api_key(view: View) -> Said:
    """A key stands for a user, at the edge, and is counted where it is taken."""
    for method, policy in view.methods():
        if policy.api_key and (policy.auth not in _OF_A_USER or EDGE not in callers_of(method)):
            yield method, "takes an API key and asks no client for a user; write `auth: AUTH_USER`, or no `api_key`"
        if policy.rate_limit.by == policy_pb2.RATE_LIMIT_BY_API_KEY and not policy.api_key:
            yield method, "counts by a key that it does not take; write `api_key: true`, or `by: RATE_LIMIT_BY_USER`"


RULES = (auth, scopes, callers, callers_of_services, on_behalf, owner, scopes_in_comments, api_key)
