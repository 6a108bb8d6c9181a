"""The notification room's database behind its ports."""

from services.notification.store.sql import SqlStore
from services.notification.store.tables import metadata

__all__ = ["SqlStore", "metadata"]
