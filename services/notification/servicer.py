"""gRPC in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paymesh.notification.v1 import notification_service_pb2 as pb
from paymesh.notification.v1 import notification_service_pb2_grpc as rpc
from services.kernel.pages import page
from services.notification import mapping, usecases
from services.platform.interceptor import current

if TYPE_CHECKING:
    from typing import Any

    from grpc.aio import ServicerContext

    from services.notification.ports import Ports
    from services.platform.batcher import Batcher
    from services.platform.reads import ReadPool

    Context = ServicerContext[Any, Any]

READ_ANY = "notifications:read"


class NotificationServicer(rpc.NotificationServiceServicer):
    """The service."""

    def __init__(self, ports: Ports, batcher: Batcher, reads: ReadPool) -> None:
        """Write through ``batcher``, read through ``reads``."""
        self._ports, self._batcher, self._reads = ports, batcher, reads

    async def SendSms(self, request: pb.SendSmsRequest, context: Context) -> pb.SendSmsResponse:
        """Queue a text message."""
        return pb.SendSmsResponse.FromString(await self._send(mapping.send_sms(current(), request)))

    async def SendEmail(self, request: pb.SendEmailRequest, context: Context) -> pb.SendEmailResponse:
        """Queue an e-mail."""
        return pb.SendEmailResponse.FromString(await self._send(mapping.send_email(current(), request)))

    async def SendPush(self, request: pb.SendPushRequest, context: Context) -> pb.SendPushResponse:
        """Queue a push message."""
        return pb.SendPushResponse.FromString(await self._send(mapping.send_push(current(), request)))

    async def GetNotification(self, request: pb.GetNotificationRequest, context: Context) -> pb.GetNotificationResponse:
        """Read a notification."""
        owner = current().caller.owns_or(READ_ANY)
        found = await self._reads.run(usecases.get_notification, self._ports.store, request.id, owner)
        return pb.GetNotificationResponse(notification=mapping.notification(found))

    async def ListUserNotifications(
        self, request: pb.ListUserNotificationsRequest, context: Context
    ) -> pb.ListUserNotificationsResponse:
        """List the notifications to a user; whose they are was checked by the contract's owner rule."""
        wanted = page(request.page_size, request.page_token)
        store = self._ports.store
        return mapping.notifications(
            *await self._reads.run(usecases.list_user_notifications, store, request.user_id, wanted)
        )

    async def _send(self, command: usecases.SendNotification) -> bytes:
        made: bytes = await self._batcher.submit("send_notifications", command, current().deadline)
        return made
