"""Gateway: what the edge itself answers, and what all edges have in common.

Owns       the view from outside (health of the mesh, list of routes, OpenAPI document and its page), API keys and the keys
           that sign them, limits that all edges count together
Calls      config.GetMeshHealth
Publishes  -
Consumes   -
Tables     api_keys, signing_keys, idempotency_keys
Invariants - health is never better than what config said at most 5 s ago
           - routes, document and page are what the contracts say: rendered once at start, the same in every instance
           - the page needs nothing from any other host
           - what a user shows as an API key is told once and stored nowhere, also not under an idempotency key
           - a key never has a scope that its owner did not have when it was made or rotated
           - of a common bucket no more calls are let through than the contract says, however many edges and instances ask;
             who cannot count says so, and then each edge counts by itself
"""
