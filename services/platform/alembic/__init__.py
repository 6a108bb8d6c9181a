"""The one Alembic environment of all rooms."""
