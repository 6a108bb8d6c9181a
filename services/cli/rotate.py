"""`paymesh rotate`: new keys for the card vault, while the mesh runs or not."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from services.cli.exits import CommandError, Exit
from services.cli.folder import Folder, default_folder, keep_private
from services.cli.migrate import given


def rotate(
    data: Annotated[Path | None, typer.Option(help="Folder of the mesh.")] = None,
    *,
    ca: Annotated[bool, typer.Option("--ca", help="A new CA for the mesh instead, which must run.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Make a new key-encryption key and a new data key for the card vault.

    Every key is wrapped anew here; cards move to the new data key within minutes, by the payment service.
    With --ca: trust a new CA beside the old one, issue by it, drop the old one. Each step waits for every Envoy;
    one that was interrupted is gone on with. Clients outside read DIR/pki/ca.pem again.
    """
    if ca:
        _rotate_ca(Folder(data or default_folder()), as_json=json_)
        return
    from services.payment.adapters.vault import CardVault, FileKeys  # noqa: PLC0415 - heavy imports late
    from services.payment.ports.cards import Rotation, VaultUnusable  # noqa: PLC0415
    from services.payment.store import SqlCards  # noqa: PLC0415
    from services.platform.database import Database  # noqa: PLC0415

    keep_private()
    folder = Folder(data or default_folder())
    url = given().get("payment") or f"sqlite:///{folder.path / 'payment.db'}"
    if url.startswith("sqlite:") and not Path(url.removeprefix("sqlite:///")).is_file():
        raise CommandError(Exit.NOT_FOUND, f"There is no mesh in {folder.path}: it has no payment.db.")
    database = Database(url)
    try:
        vault: Rotation = CardVault(SqlCards(database), FileKeys(folder.vault_keys))
        wrapped, data_key = vault.rotate_key_encryption_key(), vault.rotate_data_key(time.time_ns() // 1_000_000)
    except VaultUnusable as error:
        raise CommandError(Exit.UNAVAILABLE, str(error)) from None
    finally:
        database.stop()
    said = {"keys_wrapped_anew": wrapped, "data_key": data_key}
    print(json.dumps(said) if json_ else f"{wrapped} keys are wrapped anew; cards move to {data_key}")


def _rotate_ca(folder: Folder, *, as_json: bool) -> None:
    from services.cli.authority import change_authority  # noqa: PLC0415

    authority = change_authority(folder, lambda phase: None if as_json else print(phase, flush=True))
    print(json.dumps(authority) if as_json else f"the CA is {authority['fingerprints'][0]}")
