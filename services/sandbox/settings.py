"""Where the sandbox listens, and what its providers of payments stand on."""

from dataclasses import dataclass

from services.platform.settings import setting


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Both ports are on loopback: what pretends to be a provider must never be reached from elsewhere."""

    sandbox_http: int = setting("Port of the HTTP providers and of what they received.", low=1, high=65535)
    sandbox_smtp: int = setting("Port of the mail sink.", low=1, high=65535)
    sandbox_folder: str = setting("Folder of the keys and books of the providers of payments, made if it is not there "
                                  "(DIR/providers); empty: there are none.", "")  # fmt: skip
    sandbox_time_scale: float = setting("Length of the providers' waits (repeats of callbacks, late outcomes): 1 is "
                                        "the published schedule, 0.001 a thousandth of it.", 1.0, low=0, high=1)  # fmt: skip
    sandbox_ca: str = setting("PEM file of the CA that signed the certificates of merchants who are called back (the "
                              "mesh's ca.pem); empty: the public CAs.", "")  # fmt: skip
