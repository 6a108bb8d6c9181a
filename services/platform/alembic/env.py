"""Alembic's environment: runs versions over the connection that platform.migrations hands in."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
context.run_migrations()
