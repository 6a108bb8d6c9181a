"""Who is who in the mesh: SPIFFE ids, DNS names and the headers in which identity travels."""

from __future__ import annotations

TRUST_DOMAIN = "paymesh"

SUBJECT = "x-paymesh-sub"
SCOPE = "x-paymesh-scope"
SESSION = "x-paymesh-sid"
KEY = "x-paymesh-key"
"""Id of the API key with which the caller came; it ends at the first service."""
PREFIX = "x-paymesh-"
"""Every header of ours begins with it; from a client, or a peer that may not pass on identities, all are dropped."""
PEER = "x-forwarded-client-cert"
"""Set by a service's own Envoy from the peer's certificate, never taken from anybody."""


def spiffe_id(service: str, namespace: str = "default") -> str:
    """Return the URI that stands in a service's certificate. Only Kubernetes knows other namespaces."""
    return f"spiffe://{TRUST_DOMAIN}/ns/{namespace}/sa/{service}"


def dns_name(service: str) -> str:
    """Return the DNS name that stands in a service's certificate, for peers that know no URIs."""
    return f"{service}.{TRUST_DOMAIN}.internal"


def instance_name(node_id: str, service: str) -> str:
    """Return the DNS name that stands in the certificate of one instance's Envoy alone, by which it can be revoked."""
    return f"{node_id}.{dns_name(service)}"
