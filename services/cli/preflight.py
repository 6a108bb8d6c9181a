"""Everything that can be known to be wrong before anything is started, found all at once."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
from typing import TYPE_CHECKING

from services.cli.exits import CommandError, Exit
from services.cli.ports import is_free, owner
from services.cli.settings import ROOMS, UpSettings, up_names, up_settings
from services.platform.settings import PREFIX, ServiceSettings, SettingsError, load
from services.sandbox.settings import Settings as SandboxSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from services.cli.folder import Folder


def preflight(folder: Folder, environ: Mapping[str, str]) -> UpSettings:
    """Return the settings of a mesh that can be started in ``folder``. Raises CommandError with every fault."""
    faults = []
    if fault := folder.fault():
        faults.append(fault)
    settings = None
    try:
        settings = up_settings(environ)
    except SettingsError as error:
        faults += error.faults
    faults += service_faults(environ, ROOMS)
    if settings:
        faults += _port_faults(settings)
    if faults or not settings:
        raise CommandError(Exit.BAD_INPUT, *dict.fromkeys(faults))
    return settings


def service_faults(environ: Mapping[str, str], rooms: Iterable[str]) -> list[str]:
    """Say what the services would not take from ``environ``, so that they need not start to say it."""
    filled = {"PAYMESH_DATA": "/", "PAYMESH_LISTEN": "unix:/", "PAYMESH_DATABASE_URL": "sqlite://"}
    inherited = {name: value for name, value in environ.items() if name.startswith("PAYMESH_")}
    faults = []
    for room in rooms:
        for cls in _settings_of(room):
            try:
                load(cls, {**filled, **inherited})
            except SettingsError as error:
                # Not set here: it is one that `up` sets for the service.
                faults += [fault for fault in error.faults if " is not set." not in fault]
    return faults


def unknown(environ: Mapping[str, str]) -> list[str]:
    """Say which variables look like ours and are read by nobody: each is a setting that somebody thinks is made."""
    classes: list[type[ServiceSettings | SandboxSettings]] = [
        SandboxSettings,
        *(cls for room in ROOMS for cls in _settings_of(room)),
    ]
    known = up_names() | {PREFIX + each.name.upper() for cls in classes for each in dataclasses.fields(cls)}
    said = []
    for name in sorted(name for name in environ if name.startswith(PREFIX) and name not in known):
        near = difflib.get_close_matches(name, known, 1)
        said.append(f"{name} is no setting, and ignored.{f' Is {near[0]} meant?' if near else ''}")
    return said


def _settings_of(room: str) -> list[type[ServiceSettings]]:
    name = f"services.{room}.settings"
    module = importlib.import_module(name)
    found = inspect.getmembers(module, lambda each: inspect.isclass(each) and issubclass(each, ServiceSettings))
    return [cls for _, cls in found if cls.__module__ == name]


def _port_faults(settings: UpSettings) -> list[str]:
    wanted = {"PAYMESH_REST_PORT": (settings.rest_port, "REST"), "PAYMESH_GRPC_PORT": (settings.grpc_port, "gRPC")}
    faults = []
    for name, (port, what) in wanted.items():
        if port and not is_free(port):
            by = owner(port)
            faults.append(
                f"Port {port}, which the edge wants for {what}, is taken{f' by {by}' if by else ''}. "
                f"Set {name} to another port, or to 0 for a free one."
            )
    return faults
