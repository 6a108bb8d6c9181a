"""Who proves what to whom: mutual TLS 1.3 inside the mesh, ordinary TLS towards clients.

Certificates come as two secrets over the same stream as everything else, so that renewing one touches no listener.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.extensions.transport_sockets.tls import v3 as tls
from envoy_data_plane.envoy.type.matcher import v3 as matcher

from services.mesh.resource import ads, packed
from services.platform.identity import dns_name, spiffe_id

if TYPE_CHECKING:
    from betterproto2 import Message

IDENTITY = "identity"
"""The secret that is the node's certificate and key."""
TRUST = "trust"
"""The secret that is the CAs of the mesh."""

_V = tls.TlsParametersTlsProtocol


def identity(cert_pem: str, key_pem: str) -> tls.Secret:
    """Make the secret with the node's certificate chain and key."""
    return tls.Secret(
        name=IDENTITY,
        tls_certificate=tls.TlsCertificate(
            certificate_chain=core.DataSource(inline_string=cert_pem),
            private_key=core.DataSource(inline_string=key_pem),
        ),
    )


def trust(ca_pem: str) -> tls.Secret:
    """Make the secret with the CAs that the node trusts."""
    return tls.Secret(
        name=TRUST,
        validation_context=tls.CertificateValidationContext(trusted_ca=core.DataSource(inline_string=ca_pem)),
    )


def mesh_server() -> core.TransportSocket:
    """Take mutual TLS 1.3 alone, from peers whose certificate is of our trust domain; RBAC says which of them."""
    return _socket(
        tls.DownstreamTlsContext(
            require_client_certificate=True,
            # A session that is resumed shows no certificate: it would outlive one that ended and a CA that was dropped,
            # and RBAC does not see an instance's name in it.
            disable_stateless_session_resumption=True,
            disable_stateful_session_resumption=True,
            common_tls_context=_mutual(matcher.StringMatcher(prefix=spiffe_id(""))),
        )
    )


def mesh_client(service: str) -> core.TransportSocket:
    """Speak mutual TLS 1.3 to a service, and to nobody else that should sit at its address."""
    return _socket(
        tls.UpstreamTlsContext(
            sni=dns_name(service), common_tls_context=_mutual(matcher.StringMatcher(exact=spiffe_id(service)))
        )
    )


def public_server(*alpn: str) -> core.TransportSocket:
    """Take TLS 1.2 and 1.3 from clients."""
    return _socket(
        tls.DownstreamTlsContext(
            common_tls_context=tls.CommonTlsContext(
                tls_params=tls.TlsParameters(
                    tls_minimum_protocol_version=_V.TLSv1_2,
                    tls_maximum_protocol_version=_V.TLSv1_3,
                    cipher_suites=list(CIPHERS),
                ),
                tls_certificate_sds_secret_configs=[_secret(IDENTITY)],
                alpn_protocols=list(alpn),
            )
        )
    )


CIPHERS = (
    "[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]",
    "[ECDHE-RSA-AES128-GCM-SHA256|ECDHE-RSA-CHACHA20-POLY1305]",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
)
"""Of TLS 1.2: forward secrecy and AEAD only. The suites of TLS 1.3 are all good and cannot be chosen."""


def _mutual(peer: matcher.StringMatcher) -> tls.CommonTlsContext:
    return tls.CommonTlsContext(
        # Both bounds: a client's default maximum is 1.2, which a minimum of 1.3 turns into a bare connection error.
        tls_params=tls.TlsParameters(tls_minimum_protocol_version=_V.TLSv1_3, tls_maximum_protocol_version=_V.TLSv1_3),
        tls_certificate_sds_secret_configs=[_secret(IDENTITY)],
        combined_validation_context=tls.CommonTlsContextCombinedCertificateValidationContext(
            default_validation_context=tls.CertificateValidationContext(
                match_typed_subject_alt_names=[
                    tls.SubjectAltNameMatcher(san_type=tls.SubjectAltNameMatcherSanType.URI, matcher=peer)
                ]
            ),
            validation_context_sds_secret_config=_secret(TRUST),
        ),
        alpn_protocols=["h2"],
    )


def _secret(name: str) -> tls.SdsSecretConfig:
    return tls.SdsSecretConfig(name=name, sds_config=ads())


def _socket(context: Message) -> core.TransportSocket:
    return core.TransportSocket(name="envoy.transport_sockets.tls", typed_config=packed(context))
