"""The few makers that every part of the configuration uses."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm
from envoy_data_plane.envoy.extensions.upstreams.http import v3 as upstreams
from envoy_data_plane.google.protobuf import Any

if TYPE_CHECKING:
    from betterproto2 import Message

packed = Any.pack
"""Pack a message with its type URL."""


def ms(milliseconds: int) -> timedelta:
    """Milliseconds as the types want them."""
    return timedelta(milliseconds=milliseconds)


def ads() -> core.ConfigSource:
    """The stream that everything comes by."""
    return core.ConfigSource(ads=core.AggregatedConfigSource(), resource_api_version=core.ApiVersion.V3)


def address(text: str) -> core.Address:
    """Read host:port, or the path of a unix socket."""
    if text.startswith("/"):
        # Only the owner: who reaches the socket speaks as the service.
        return core.Address(pipe=core.Pipe(path=text, mode=0o600))
    host, _, port = text.rpartition(":")
    return core.Address(socket_address=core.SocketAddress(address=host, port_value=int(port)))


def extension(name: str, message: Message) -> core.TypedExtensionConfig:
    """Name an extension and configure it."""
    return core.TypedExtensionConfig(name=name, typed_config=packed(message))


def http_filter(name: str, message: Message) -> hcm.HttpFilter:
    """Name an HTTP filter and configure it; routes override it by the name."""
    return hcm.HttpFilter(name=name, typed_config=packed(message))


def header(name: str, value: str) -> core.HeaderValueOption:
    """Set a header, whatever it was."""
    overwrite = core.HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD
    return core.HeaderValueOption(header=core.HeaderValue(key=name, value=value), append_action=overwrite)


def http2(options: core.Http2ProtocolOptions, common: core.HttpProtocolOptions | None = None) -> dict[str, Any]:
    """Protocol options of a cluster that speaks HTTP/2."""
    explicit = upstreams.HttpProtocolOptionsExplicitHttpConfig(http2_protocol_options=options)
    value = upstreams.HttpProtocolOptions(explicit_http_config=explicit, common_http_protocol_options=common)
    return {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": packed(value)}
