"""An edge without the mesh: its services are whatever a test puts where it looks for them."""

from __future__ import annotations

import json
import ssl
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import grpc
import httpx
from joserfc import jwt
from joserfc.jwk import KeySet

from services.mesh.node import EDGE
from services.mesh.world import ApiKeys
from tests.integration.envoys import Mesh, envoy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from services.mesh.world import World

LEAVING = "user-2"
"""An instance that has said that it will go."""


class EdgeAlone(Mesh):
    """An edge whose services are at addresses where a test puts what it wants."""

    def world(self) -> World:
        """Say where the instances are, that one is leaving, and what verifies API keys."""
        world = super().world()
        places = {
            service: tuple(replace(each, draining=each.name == LEAVING) for each in instances)
            for service, instances in world.instances.items()
        }
        keys = ApiKeys(json.dumps(KeySet([self.key]).as_dict(private=False)))
        return replace(world, instances=places, api_keys=keys)

    def api_key(self, *, subject: str, scope: str) -> str:
        """Sign an API key as the gateway does."""
        now = int(time.time())
        claims = {"iss": "paymesh-keys", "aud": "paymesh-api", "sub": subject, "scope": scope, "jti": "5", "iat": now}
        return jwt.encode({"alg": "ES256", "kid": "k1"}, {**claims, "exp": now + 900}, self.key)

    @contextmanager
    def running(self) -> Iterator[EdgeAlone]:
        """Run the edge until the block ends."""
        with envoy(self.bootstrap(self.edge), self.directory, "edge") as admin:
            self.admin[EDGE] = admin
            yield self

    def at(self, instance: str) -> str:
        """Where an instance is looked for."""
        return self.sidecars[instance].inbound

    def tls(self, service: str) -> ssl.SSLContext:
        """Prove to be a service."""
        leaf, context = self.authority.issue(service), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        chain = self.directory / f"{service}.pem"
        chain.write_text(leaf.cert_pem + leaf.key_pem)
        context.load_cert_chain(chain)
        return context

    def credentials(self, service: str) -> grpc.ServerCredentials:
        """Prove the same to gRPC."""
        leaf = self.authority.issue(service)
        return grpc.ssl_server_credentials([(leaf.key_pem.encode(), leaf.cert_pem.encode())])

    def stat(self, name: str) -> int:
        """Read a number of the edge's."""
        text = httpx.get(f"{self.admin[EDGE]}/stats", params={"filter": f"^{name}$"}).text
        return int(text.rpartition(":")[2]) if text.strip() else 0
