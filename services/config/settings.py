"""What config can be told."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.platform.settings import PREFIX, ServiceSettings, SettingsError, setting

OWN, ISTIO = "own", "istio"
_NOWHERE = Path()
_ORIGIN: Final = re.compile(r"https?://[a-z0-9.-]+(?::[0-9]{1,5})?")


@dataclass(frozen=True, kw_only=True)
class ConfigSettings(ServiceSettings):
    """Settings of config."""

    envoys: str = setting("Whose Envoys carry the calls of the mesh: our own, which config serves, or Istio's.", OWN,
                          words=(OWN, ISTIO))  # fmt: skip
    xds_listen: str = setting(
        "Address on which every Envoy of the mesh is served, in plaintext: a unix socket in a folder of mode 0700.", ""
    )
    ca_dir: Path = setting("Folder with the mesh's CA: ca.pem and ca.key, as `paymesh cert` makes them.", _NOWHERE)
    leaf_life_s: int = setting(
        "Seconds that a certificate of an Envoy is valid; it is issued again at half of them.",
        86_400,
        low=10,
        high=86_400,
    )
    join_tokens: Path = setting(
        "JSON file {node id: SHA-256 of its join token in hex}; read again when it changes.", _NOWHERE
    )
    cors_origins: str = setting("Origins whose pages may call the edge from a browser, such as https://shop.example, with "
                                "commas between them; empty: none.", "")  # fmt: skip

    def __post_init__(self) -> None:
        """Ask for what our own Envoys need, where they are ours, and for origins as a browser says them."""
        wrong = sorted(origin for origin in self.origins if not _ORIGIN.fullmatch(origin))
        if wrong:
            name = f"{PREFIX}CORS_ORIGINS"
            raise SettingsError([f"{name}: {origin!r} is not scheme://host, in small letters." for origin in wrong])
        needed = {"xds_listen": self.xds_listen, "ca_dir": self.ca_dir, "join_tokens": self.join_tokens}
        missing = [name for name, value in needed.items() if value in {"", _NOWHERE}]
        if self.envoys == OWN and missing:
            names = (f"{PREFIX}{name.upper()}" for name in missing)
            raise SettingsError([f"{name} is not set. Our own Envoys need it." for name in names])

    @property
    def origins(self) -> frozenset[str]:
        """The origins, one by one."""
        return frozenset(filter(None, map(str.strip, self.cors_origins.split(","))))
