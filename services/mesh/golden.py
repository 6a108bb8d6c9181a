"""What config serves, written down to be reviewed like code: a static bootstrap per kind of node.

Ports and paths are placeholders. Certificates are named as files, so that no key is in the tree; so is the descriptor set
of the contracts, which is the bytes that the transcoder gets.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from services.contract.load import contract
from services.mesh import snapshot, static
from services.mesh.node import Edge, Sidecar
from services.mesh.world import Instance, World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from services.contract.model import Contract
    from services.mesh.node import Node

DESCRIPTOR_SET = "gen/descriptor/paymesh.binpb"
CERTIFICATE, KEY, TRUST = "pki/identity.pem", "pki/identity.key", "pki/ca.pem"
_ADMIN = "127.0.0.1:9901"


def files() -> dict[str, str]:
    """Render every golden file: name -> text."""
    return {f"{node.id}.json": _text(bootstrap(contract(), node)) for node in nodes(contract())}


def nodes(policy: Contract) -> Iterator[Node]:
    """Yield an edge and a sidecar of each service, at placeholder addresses."""
    yield Edge("edge-1", "127.0.0.1:8443", "127.0.0.1:8444")
    for service in policy.services.values():
        run = f"/run/paymesh/{service.name}-1"
        yield Sidecar(f"{service.name}-1", service.name, _address(service.port, 1), f"{run}.sock", f"{run}.out.sock")


def world(policy: Contract) -> World:
    """Make a world of two instances of each service."""
    return World(
        {
            service.name: tuple(Instance(f"{service.name}-{n}", _address(service.port, n)) for n in (1, 2))
            for service in policy.services.values()
        }
    )


def bootstrap(policy: Contract, node: Node) -> dict[str, Any]:
    """Render a node's golden bootstrap."""
    made = snapshot.make(policy, node, world(policy), snapshot.Secrets(CERTIFICATE, KEY, TRUST))
    said = static.bootstrap(node, made, admin=_ADMIN)
    _name_files(said)
    return said


def _address(port: int, instance: int) -> str:
    return f"127.0.0.{instance}:{port}"


def _name_files(value: object) -> None:
    """Turn inline content that is a file into the file's name."""
    if isinstance(value, dict):
        if value.get("inline_string") in {CERTIFICATE, KEY, TRUST}:
            value["filename"] = value.pop("inline_string")
        if value.pop("proto_descriptor_bin", None):
            value["proto_descriptor"] = DESCRIPTOR_SET
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            _name_files(inner)


_WIDTH = 120


def _text(made: dict[str, Any]) -> str:
    return _lines(made, 0) + "\n"


def _lines(value: object, depth: int) -> str:
    """Write sorted JSON: what fits a line on one line, the rest indented by two."""
    short = json.dumps(value, sort_keys=True, ensure_ascii=False)
    if not value or not isinstance(value, dict | list) or 2 * depth + len(short) <= _WIDTH:
        return short
    inner, outer = "  " * (depth + 1), "  " * depth
    if isinstance(value, list):
        return "[\n" + ",\n".join(inner + _lines(each, depth + 1) for each in value) + f"\n{outer}]"
    members = (f"{inner}{json.dumps(key)}: {_lines(each, depth + 1)}" for key, each in sorted(value.items()))
    return "{\n" + ",\n".join(members) + f"\n{outer}}}"
