"""gRPC in: parse, submit, render; no decision, no SQL. Passwords are hashed and tokens signed in threads of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paymesh.user.v1 import user_service_pb2 as pb
from paymesh.user.v1 import user_service_pb2_grpc as rpc
from services.platform.interceptor import current
from services.user import mapping, usecases

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from grpc.aio import ServicerContext

    from services.platform.batcher import Batcher
    from services.platform.reads import ReadPool
    from services.user.ports import Ports

    Context = ServicerContext[Any, Any]


class UserServicer(rpc.UserServiceServicer):
    """The user service of the contract."""

    def __init__(
        self, ports: Ports, batcher: Batcher, reads: ReadPool, hashing: ReadPool, seal: Callable[[bytes], bytes]
    ) -> None:
        """Write through ``batcher``, read through ``reads``, hash in ``hashing``; ``seal`` hides fingerprints."""
        self._ports, self._batcher, self._reads, self._hashing, self._seal = ports, batcher, reads, hashing, seal

    async def RegisterUser(self, request: pb.RegisterUserRequest, context: Context) -> pb.RegisterUserResponse:
        """Make an account."""
        call = current()
        hashed = await self._hashing.run(usecases.hash_password, self._ports, request.password, call.deadline)
        command = mapping.register_user(call, request, hashed, self._seal)
        return pb.RegisterUserResponse.FromString(await self._batcher.submit("register_users", command, call.deadline))

    async def LoginUser(self, request: pb.LoginUserRequest, context: Context) -> pb.LoginUserResponse:
        """Begin a session."""
        call = current()
        checked = await self._hashing.run(
            usecases.check_password, self._ports, call.caller, request.username, request.password
        )
        granted = await self._batcher.submit("login_users", checked, call.deadline)
        tokens = await self._reads.run(usecases.issue_tokens, self._ports, granted)
        return pb.LoginUserResponse(user=mapping.user(granted.profile), session=mapping.session(tokens))

    async def RefreshSession(self, request: pb.RefreshSessionRequest, context: Context) -> pb.RefreshSessionResponse:
        """Exchange a refresh token."""
        command = mapping.refresh_session(request)
        granted = await self._batcher.submit("refresh_sessions", command, current().deadline)
        tokens = await self._reads.run(usecases.issue_tokens, self._ports, granted)
        return pb.RefreshSessionResponse(session=mapping.session(tokens))

    async def LogoutUser(self, request: pb.LogoutUserRequest, context: Context) -> pb.LogoutUserResponse:
        """End the caller's session."""
        call = current()
        await self._batcher.submit("logout_users", usecases.LogoutUser(call.caller), call.deadline)
        return pb.LogoutUserResponse()

    async def GetUser(self, request: pb.GetUserRequest, context: Context) -> pb.GetUserResponse:
        """Read an account."""
        found = await self._reads.run(usecases.get_user, self._ports, current().caller, request.id)
        return pb.GetUserResponse(user=mapping.user(found))

    async def UpdateUser(self, request: pb.UpdateUserRequest, context: Context) -> pb.UpdateUserResponse:
        """Change an account."""
        call = current()
        await self._reads.run(usecases.admit, self._ports, call.caller, usecases.WRITE_ANY, request.id)
        wish = mapping.new_password(request)
        checked = await self._hashing.run(usecases.check_new_password, self._ports, wish, call.deadline)
        command = mapping.update_user(call, request, checked)
        return pb.UpdateUserResponse(
            user=mapping.user(await self._batcher.submit("update_users", command, call.deadline))
        )

    async def SetUserRoles(self, request: pb.SetUserRolesRequest, context: Context) -> pb.SetUserRolesResponse:
        """Set a user's roles."""
        call = current()
        await self._reads.run(usecases.require, self._ports, call.caller, usecases.WRITE_ANY)
        command = mapping.set_user_roles(request)
        return pb.SetUserRolesResponse(
            user=mapping.user(await self._batcher.submit("set_user_roles", command, call.deadline))
        )

    async def GetJwks(self, request: pb.GetJwksRequest, context: Context) -> pb.GetJwksResponse:
        """List the keys: they are in memory."""
        return pb.GetJwksResponse(keys=map(mapping.jwk, usecases.get_jwks(self._ports)))
