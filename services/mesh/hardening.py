"""What makes a browser, a proxy and a client in a hurry harmless: headers of answers, cross-origin calls, compression, size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from envoy_data_plane.envoy.config.common.mutation_rules import v3 as mutation
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.extensions.compression.gzip.compressor import v3 as gzip
from envoy_data_plane.envoy.extensions.filters.http.compressor import v3 as compressor
from envoy_data_plane.envoy.extensions.filters.http.cors import v3 as cors
from envoy_data_plane.envoy.extensions.filters.http.header_mutation import v3 as mutating
from envoy_data_plane.envoy.type import v3 as kind
from envoy_data_plane.envoy.type.matcher import v3 as matcher

from services.mesh.resource import extension, header, http_filter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm

CORS = "envoy.filters.http.cors"
HEADERS = "answer_headers"
COMPRESSION = "envoy.filters.http.compressor"

# -- Memory ----------------------------------------------------------------------------------------------------------

BUFFER_BYTES = 32 << 10
"""Kept of a connection in either direction before its sender has to wait; a filter that needs a body whole says so."""
_HEAP_BYTES_MAX = 512 << 20
"""An Envoy of ours has 40 MiB at rest, and 10 000 connections with TLS take 200."""
_CONNECTIONS_MAX = 10_000
"""Each costs about 20 KiB with TLS; beyond it a new one is closed at once."""


def overload_manager() -> dict[str, Any]:
    """Make the part of a bootstrap that says what a process gives up, in this order, when its memory is nearly used up.

    Idle connections and slow senders have less time from 80 % on, then free memory goes back, then whole requests are
    refused while those that were taken go on, then connections.
    """
    heap = "envoy.resource_monitors.fixed_heap"

    def at(share: float) -> list[dict[str, Any]]:
        return [{"name": heap, "threshold": {"value": share}}]

    timers = ("HTTP_DOWNSTREAM_CONNECTION_IDLE", "HTTP_DOWNSTREAM_STREAM_IDLE", "TRANSPORT_SOCKET_CONNECT")
    hurried = {
        "name": "envoy.overload_actions.reduce_timeouts",
        "triggers": [{"name": heap, "scaled": {"scaling_threshold": 0.80, "saturation_threshold": 0.92}}],
        "typed_config": {
            "@type": _type("config.overload.v3.ScaleTimersOverloadActionConfig"),
            "timer_scale_factors": [{"timer": timer, "min_scale": {"value": 10}} for timer in timers],
        },
    }
    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [
            {
                "name": heap,
                "typed_config": {
                    "@type": _type("extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig"),
                    "max_heap_size_bytes": _HEAP_BYTES_MAX,
                },
            },
            {
                "name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": {
                    "@type": _type(
                        "extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
                    ),
                    "max_active_downstream_connections": _CONNECTIONS_MAX,
                },
            },
        ],
        "actions": [
            hurried,
            {"name": "envoy.overload_actions.shrink_heap", "triggers": at(0.90)},
            {"name": "envoy.overload_actions.disable_http_keepalive", "triggers": at(0.92)},
            {"name": "envoy.overload_actions.stop_accepting_requests", "triggers": at(0.95)},
            {"name": "envoy.overload_actions.stop_accepting_connections", "triggers": at(0.98)},
        ],
    }


def _type(name: str) -> str:
    return f"type.googleapis.com/envoy.{name}"


# -- Answers ---------------------------------------------------------------------------------------------------------

ANSWER_HEADERS = {
    # Two years, as the lists that browsers ship ask for.
    "strict-transport-security": "max-age=63072000; includeSubDomains",
    "x-content-type-options": "nosniff",
    # The page of the API has no script; an answer that is shown as one runs nothing, loads nothing and stands in no frame.
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""On each answer of REST, refusals included, unless a service or a route says otherwise."""
UNTOUCHED = "no-store, no-transform"
"""Of an answer with a secret in it: nobody keeps it, and nobody compresses it, ourselves included (see compression)."""


def answer_headers() -> hcm.HttpFilter:
    """Put the headers on; the first filter, for it is the last to see an answer."""
    absent = core.HeaderValueOptionHeaderAppendAction.ADD_IF_ABSENT
    added = [
        mutation.HeaderMutation(
            append=core.HeaderValueOption(header=core.HeaderValue(key=name, value=value), append_action=absent)
        )
        for name, value in ANSWER_HEADERS.items()
    ]
    return http_filter(HEADERS, mutating.HeaderMutation(mutations=mutating.Mutations(response_mutations=added)))


def untouched() -> core.HeaderValueOption:
    """Say of a route that its answers carry a secret."""
    return header("cache-control", UNTOUCHED)


# -- Browsers --------------------------------------------------------------------------------------------------------

_ASKED = ("authorization", "content-type", "idempotency-key", "accept-language", "traceparent")
"""What a page may send."""
_SHOWN = (
    "retry-after",
    "x-request-id",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "www-authenticate",
)
"""What a page may read beside the body."""


def cross_origin() -> hcm.HttpFilter:
    """Answer what browsers ask before a call from another origin; which origins may, the routes say."""
    return http_filter(CORS, cors.Cors())


def allowed(origins: Iterable[str], verbs: Iterable[str]) -> cors.CorsPolicy:
    """Let pages of these origins, compared as a whole, call. No cookie is ever sent along: a caller is known by a token."""
    return cors.CorsPolicy(
        allow_origin_string_match=[matcher.StringMatcher(exact=origin) for origin in sorted(origins)],
        allow_methods=", ".join(sorted(verbs)),
        allow_headers=", ".join(_ASKED),
        expose_headers=", ".join(_SHOWN),
        max_age="600",
        allow_credentials=False,
        filter_enabled=core.RuntimeFractionalPercent(default_value=kind.FractionalPercent(numerator=100)),
    )


# -- Compression -----------------------------------------------------------------------------------------------------


def compression() -> hcm.HttpFilter:
    """Compress answers of a size that is worth it.

    What compresses a secret beside a text that an attacker chose tells the secret by the size (BREACH). It takes a browser
    that makes calls with the victim's credentials by itself, and ours are in no cookie; and an answer that carries a secret
    is left as it is all the same: its route says `no-transform`.
    """
    # JSON and HTML, which is what there is, are among what Envoy compresses unasked.
    common = compressor.CompressorCommonDirectionConfig(min_content_length=1024)
    return http_filter(
        COMPRESSION,
        compressor.Compressor(
            compressor_library=extension(
                "gzip",
                gzip.Gzip(
                    memory_level=5, window_bits=12, compression_level=gzip.GzipCompressionLevel.COMPRESSION_LEVEL_5
                ),
            ),
            response_direction_config=compressor.CompressorResponseDirectionConfig(
                common_config=common, remove_accept_encoding_header=True
            ),
        ),
    )
