"""Alembic versions of config's tables."""
