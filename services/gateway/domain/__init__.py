"""Rules of the gateway room: what it tells of the mesh, API keys, limits. Pure: no I/O, clock or randomness."""

from services.gateway.domain.keys import DAY_MS, ApiKey, Status, check_scopes
from services.gateway.domain.limits import Ask, Bucket, Limit, Verdict
from services.gateway.domain.mesh import Documents, MeshHealth, Route, ServiceHealth

__all__ = [
    "DAY_MS",
    "ApiKey",
    "Ask",
    "Bucket",
    "Documents",
    "Limit",
    "MeshHealth",
    "Route",
    "ServiceHealth",
    "Status",
    "Verdict",
    "check_scopes",
]
