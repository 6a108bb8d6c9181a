"""Alembic's versions of the user room, expand and contract."""
