"""Settings from the environment into frozen dataclasses; every fault is reported at once."""

from __future__ import annotations

import dataclasses
import os
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")

PREFIX = "PAYMESH_"


class SettingsError(Exception):
    """What is wrong with the environment: one sentence per fault."""

    def __init__(self, faults: list[str]) -> None:
        """Carry the ``faults``."""
        self.faults = faults
        super().__init__("\n".join(faults))


def setting(
    help_text: str,
    default: object = dataclasses.MISSING,
    *,
    low: float | None = None,
    high: float | None = None,
    words: tuple[str, ...] = (),
) -> Any:  # noqa: ANN401 - dataclasses.field is untyped too
    """Declare a setting: a sentence on what it does, its default (none: it is required), and its range or its words."""
    metadata = {"help": help_text, "low": low, "high": high, "words": words}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """What every service needs. The environment variable of a field is PAYMESH_ and its name in capitals."""

    data: Path = setting("Folder for everything that this mesh keeps on disk.")
    instance: int = setting("Number of this instance of the service, unique among those that run.", 1, low=1, high=15)
    listen: str = setting("Address that the gRPC server listens on: a unix socket that only its own Envoy dials.")
    mesh: str = setting(
        "Address of the outbound listener of this service's own Envoy; empty: calls no other service.", ""
    )
    mesh_address: str = setting(
        "host:port of the mTLS listener of this service's own Envoy; empty: not registered.", ""
    )
    database_url: str = setting(
        "SQLAlchemy URL of this service's database; empty: a SQLite file in the data folder.", ""
    )
    redis_url: str = setting("URL of Redis.", "redis://127.0.0.1:6379/0")
    kafka: str = setting("host:port of a Kafka broker.", "127.0.0.1:9092")
    relay_unread_max: int = setting("Messages in a partition that no consumer has read yet, at most; 0: no limit. "
                                    "The embedded broker drops old ones, so it has one.", 0, low=0)  # fmt: skip
    log_level: str = setting("Lowest level that is logged.", "info", words=("debug", "info", "warning", "error"))
    trace_ratio: float = setting("Share of calls that are traced where the caller did not decide.", 0.01, low=0, high=1)
    metrics_port: int = setting("Loopback port that Prometheus scrapes; 0: none.", 0, low=0, high=65535)
    failpoints: str = setting("Folder whose files name the points where a test kills the service; empty: none.", "")


def load(cls: type[T], environ: Mapping[str, str] = os.environ) -> T:
    """Read ``cls`` from ``environ``. Raises SettingsError with every fault at once."""
    hints, values, faults = typing.get_type_hints(cls), {}, []
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        name = PREFIX + field.name.upper()
        text = environ.get(name)
        if text is None or text == "":
            if field.default is dataclasses.MISSING:
                faults.append(f"{name} is not set. {field.metadata['help']}")
            continue
        try:
            values[field.name] = _parse(hints[field.name], text, field.metadata)
        except ValueError as fault:
            faults.append(f"{name}={text!r}: {fault}. {field.metadata['help']}")
    if faults:
        raise SettingsError(faults)
    return cls(**values)


def _parse(kind: Any, text: str, metadata: Mapping[str, Any]) -> object:  # noqa: ANN401 - a type form
    if kind is bool:
        if text.lower() not in {"0", "1", "true", "false"}:
            raise ValueError("write true or false")
        return text.lower() in {"1", "true"}
    if kind not in {int, float}:
        words = metadata.get("words")  # a field that hides its value is made without setting()
        if words and text not in words:
            raise ValueError(f"write one of {', '.join(words)}")
        return kind(text)
    try:
        value = kind(text)
    except ValueError:
        raise ValueError(f"is not a number ({kind.__name__})") from None
    if value != value:  # noqa: PLR0124 - NaN lies between all limits
        raise ValueError("is not a number (float)")
    low, high = metadata["low"], metadata["high"]
    if (low is not None and value < low) or (high is not None and value > high):
        raise ValueError(f"must lie between {low} and {high}")
    return typing.cast("object", value)
