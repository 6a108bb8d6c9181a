"""Settings of the user service."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

from services.platform.settings import ServiceSettings, SettingsError, setting

_USERNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{2,49}")
_PASSWORD_MIN, _PASSWORD_MAX = 10, 128


@dataclass(frozen=True, kw_only=True)
class Settings(ServiceSettings):
    """What the user service needs beyond what every service needs."""

    admin_username: str = setting("Name of the operator that is made at the first start; empty: none is.", "")
    admin_password: str = dataclasses.field(
        default="",
        repr=False,
        metadata={"help": "Password of that operator, 10 to 128 characters.", "low": None, "high": None},
    )
    access_token_s: int = setting("Life of an access token in seconds.", 900, low=60, high=3600)
    session_idle_s: int = setting("Seconds without a refresh after which a session ends.", 1800, low=60, high=86_400)
    session_life_s: int = setting(
        "Seconds after which a session ends though it is used.", 43_200, low=60, high=2_592_000
    )
    lock_failures: int = setting("Wrong passwords in a row that lock an account.", 5, low=1, high=100)
    lock_s: int = setting("Seconds for which an account is locked.", 900, low=1, high=86_400)
    hash_memory_kib: int = setting(
        "Memory of one argon2id hash in KiB; the default is OWASP's.", 47_104, low=8, high=4_194_304
    )
    hash_passes: int = setting("Passes of one argon2id hash over its memory.", 1, low=1, high=10)
    hash_threads: int = setting("Passwords that are hashed at the same time.", 2, low=1, high=64)

    def __post_init__(self) -> None:
        """Refuse half an operator, and one whom the contract would not let register."""
        faults = []
        if bool(self.admin_username) != bool(self.admin_password):
            faults.append("PAYMESH_ADMIN_USERNAME and PAYMESH_ADMIN_PASSWORD: set both, or neither.")
        if self.admin_username and not _USERNAME.fullmatch(self.admin_username):
            faults.append(f"PAYMESH_ADMIN_USERNAME={self.admin_username!r}: 3 to 50 letters, digits, dots, dashes or "
                          "underscores, the first a letter or digit.")  # fmt: skip
        if self.admin_password and not _PASSWORD_MIN <= len(self.admin_password) <= _PASSWORD_MAX:
            faults.append(f"PAYMESH_ADMIN_PASSWORD: must have {_PASSWORD_MIN} to {_PASSWORD_MAX} characters.")
        if faults:
            raise SettingsError(faults)
