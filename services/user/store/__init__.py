"""The user room's SQL: tables, rows, and SqlStore behind the ports."""

from services.user.store.sql import SqlStore

__all__ = ["SqlStore"]
