"""Gateway: what the edge itself answers.

Owns       the view from outside: health of the mesh, list of routes, OpenAPI document and its page
Calls      config.GetMeshHealth
Publishes  -
Consumes   -
Tables     -
Invariants - health is never better than what config said at most 5 s ago
           - routes, document and page are what the contracts say: rendered once at start, the same in every instance
           - the page needs nothing from any other host
"""
