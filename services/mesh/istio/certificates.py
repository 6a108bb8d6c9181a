"""The edge's certificate towards clients, kept by cert-manager. Inside the mesh istiod issues its own."""

from __future__ import annotations

from services.mesh.istio.environment import Environment
from services.mesh.istio.manifest import Json, document
from services.mesh.node import EDGE

_ROOT = f"{EDGE}-root"


def certificate(env: Environment) -> Json:
    """Ask for the edge's certificate; the Gateway reads it from the Secret."""
    return document(
        "Certificate",
        EDGE,
        {
            "secretName": f"{EDGE}-tls",
            "dnsNames": [env.host],
            "usages": ["digital signature", "server auth"],
            "privateKey": _KEY,
            "duration": "2160h",
            "renewBefore": "720h",
            "issuerRef": _issuer(EDGE),
        },
    )


def issuers(env: Environment) -> list[Json]:
    """Say who signs it: a CA of our own making, or an ACME directory that sees our DNS."""
    if not env.self_signed:
        return [document("Issuer", EDGE, {"acme": _ACME})]
    root = {
        "isCA": True,
        "commonName": "paymesh development",
        "secretName": _ROOT,
        "privateKey": _KEY,
        "issuerRef": _issuer(_ROOT),
    }
    return [
        document("Issuer", _ROOT, {"selfSigned": {}}),
        document("Certificate", _ROOT, root),
        document("Issuer", EDGE, {"ca": {"secretName": _ROOT}}),
    ]


_KEY = {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"}
_ACME = {
    "server": "https://acme-v02.api.letsencrypt.org/directory",
    "email": "operators@paymesh.example",
    "privateKeySecretRef": {"name": f"{EDGE}-acme-account"},
    "solvers": [
        {
            # By DNS: the edge has no port in plaintext that could answer.
            "dns01": {
                "rfc2136": {
                    "nameserver": "ns.paymesh.example:53",
                    "tsigKeyName": "acme",
                    "tsigAlgorithm": "HMACSHA512",
                    "tsigSecretSecretRef": {"name": f"{EDGE}-dns", "key": "tsig"},
                }
            }
        }
    ],
}


def _issuer(name: str) -> Json:
    return {"name": name, "kind": "Issuer", "group": "cert-manager.io"}
