"""Policy model -> what a plane needs: Envoy resources, OpenAPI. Pure functions; used by config, cli and generation only."""
