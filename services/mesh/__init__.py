"""Policy model -> what a plane needs: Envoy resources, Istio manifests, OpenAPI.

Pure functions; used by config, cli and generation only.
"""
