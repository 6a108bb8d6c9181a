"""What config can be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from services.platform.settings import ServiceSettings, setting


@dataclass(frozen=True, kw_only=True)
class ConfigSettings(ServiceSettings):
    """Settings of config."""

    xds_listen: str = setting(
        "Address on which every Envoy of the mesh is served, in plaintext: a unix socket in a folder of mode 0700."
    )
    ca_dir: Path = setting("Folder with the mesh's CA: ca.pem and ca.key, as `paymesh cert` makes them.")
    join_tokens: Path = setting("JSON file {node id: SHA-256 of its join token in hex}; read again when it changes.")
