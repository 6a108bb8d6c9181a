"""`paymesh cert`: a certificate with which a program of yours is a service of the mesh."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from services.cli.exits import CommandError, Exit
from services.cli.folder import Folder, default_folder, write_private

_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")


def cert(
    as_: Annotated[str, typer.Option("--as", help="The service that the certificate names.")],
    out: Annotated[Path, typer.Option(help="Folder for cert.pem, key.pem and ca.pem.")],
    data: Annotated[Path | None, typer.Option(help="Folder of the mesh.")] = None,
    *,
    json_: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Issue a client certificate, valid for a day, from the CA of the mesh in DIR."""
    from services.platform import pki  # noqa: PLC0415 - cryptography takes long to import

    if not _NAME.fullmatch(as_):
        raise CommandError(Exit.BAD_INPUT, f"--as {as_!r}: lower-case letters, digits and dashes, a letter first.")
    folder = Folder(data or default_folder())
    try:
        trust = pki.load_trust(folder.pki)
    except (OSError, ValueError) as error:
        raise CommandError(Exit.NOT_FOUND, f"There is no usable CA in {folder.pki}: {error}") from None
    leaf = trust.issuer.issue(as_)
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = {"cert": out / "cert.pem", "key": out / "key.pem", "ca": out / "ca.pem"}
    write_private(files["cert"], leaf.cert_pem)
    write_private(files["key"], leaf.key_pem)
    write_private(files["ca"], trust.pem)
    said = {name: str(path) for name, path in files.items()} | {"not_after": leaf.not_after.isoformat()}
    print(json.dumps(said) if json_ else "\n".join(f"{name:<10} {value}" for name, value in said.items()))
