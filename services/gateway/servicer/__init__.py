"""gRPC in: the service of the contract, and Envoy's question whether a call is one too many."""

from services.gateway.servicer.gateway import Gateway
from services.gateway.servicer.limits import RateLimits

__all__ = ["Gateway", "RateLimits"]
