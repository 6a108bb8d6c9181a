"""Every service of the contract, empty: each method answers its message without a field, as fast or badly as a test wants."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Self

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc import aio

from services.kernel.errors import DomainError
from services.platform.interceptor import Interceptor
from services.platform.status import grpc_code, status_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from google.protobuf.message import Message

    from services.contract.model import Method, Service

    Behaviour = Callable[[str, Method], Awaitable[None]]
    """Called with the instance and the method of each call that the interceptor let through; raises DomainError to refuse it."""


def message_of(full_name: str) -> type[Message]:
    """Return the class of a message of the contracts."""
    return message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(full_name))


class FakeRooms:
    """Servers of any methods behind the interceptor that the rooms have; they live on an event loop of their own."""

    def __init__(self, *, admit_all: bool = False) -> None:
        """Serve nothing yet; with ``admit_all`` there is no interceptor."""
        self.heard: list[tuple[str, str, dict[str, str]]] = []
        """Instance, full name of the method and metadata of each call that the interceptor let through."""
        self.behave: Behaviour | None = None
        self._interceptors = [] if admit_all else [Interceptor(frozenset(), 0.0)]
        self._servers: dict[str, aio.Server] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        """Start the loop."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop every server, and the loop."""
        for instance in [*self._servers]:
            self.stop(instance)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def serve(
        self,
        instance: str,
        service: Service,
        address: str,
        *,
        credentials: grpc.ServerCredentials | None = None,
        streams_max: int = 2000,
    ) -> None:
        """Serve every method of a service at an address, as one of its instances; ``credentials`` for TLS."""
        options = [("grpc.so_reuseport", 0), ("grpc.max_concurrent_streams", streams_max)]
        self._run(self._start(instance, service, address, credentials, options))

    def stop(self, instance: str) -> None:
        """Stop an instance at once."""
        self._run(self._servers.pop(instance).stop(0))

    def _run(self, work: Coroutine[Any, Any, Any]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _start(
        self,
        instance: str,
        service: Service,
        address: str,
        credentials: grpc.ServerCredentials | None,
        options: list[tuple[str, int]],
    ) -> None:
        server = aio.server(interceptors=self._interceptors, options=options)
        handlers = {method.name: self._handler(instance, method) for method in service.methods}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))
        if credentials:
            server.add_secure_port(address, credentials)
        else:
            server.add_insecure_port(address)
        await server.start()
        self._servers[instance] = server

    def _handler(self, instance: str, method: Method) -> grpc.RpcMethodHandler[Any, Any]:
        answer = message_of(method.response)

        async def handle(_: Message, context: Any) -> Message:  # noqa: ANN401 - a context of grpc.aio
            metadata = {str(key): str(value) for key, value in context.invocation_metadata()}
            self.heard.append((instance, method.full_name, metadata))
            try:
                if self.behave:
                    await self.behave(instance, method)
            except DomainError as refusal:
                if self._interceptors:
                    raise
                said = status_of(refusal)
                details = ("grpc-status-details-bin", said.SerializeToString())
                await context.abort(grpc_code(said), said.message, trailing_metadata=(details,))
            return answer()

        return grpc.unary_unary_rpc_method_handler(
            handle, message_of(method.request).FromString, lambda message: message.SerializeToString()
        )
