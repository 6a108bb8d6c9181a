"""Alembic's environment: runs versions over the connection that platform.migrations hands in."""

from typing import Any

from alembic import context

from services.platform import failpoint


def _step_done(**_: Any) -> None:  # noqa: ANN401 - what Alembic tells of a step
    failpoint.reach("P20", context.config.attributes["room"])


context.configure(
    connection=context.config.attributes["connection"], transactional_ddl=True, on_version_apply=_step_done
)
context.run_migrations()
