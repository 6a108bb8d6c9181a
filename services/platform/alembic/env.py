"""Alembic's environment: runs versions over the connection that platform.migrations hands in."""

from alembic import context

from services.platform import failpoint


def _step_done(*_: object, **__: object) -> None:
    failpoint.reach("P20", context.config.attributes["room"])


context.configure(
    connection=context.config.attributes["connection"], transactional_ddl=True, on_version_apply=_step_done
)
context.run_migrations()
