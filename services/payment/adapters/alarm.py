"""What operators have to look at: one line of the log and one count each."""

from __future__ import annotations

from services.platform import telemetry


class LogAlarm:
    """Tells by log and metric; what scrapes them wakes people."""

    def security(self, event: str, **facts: str | int) -> None:
        """Someone tried what nobody may."""
        telemetry.ALARMS.labels("security", event).inc()
        telemetry.log.warning("security." + event, **facts)

    def alert(self, event: str, **facts: str | int) -> None:
        """Something needs a person."""
        telemetry.ALARMS.labels("alert", event).inc()
        telemetry.log.error("alert." + event, **facts)
