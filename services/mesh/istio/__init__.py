"""Policy model -> Kubernetes and Istio manifests, as plain dicts: a small module per kind, put in folders by `tree`.

What a policy says is said once. Where Istio has a field for it, it stands there; where it has none (limits, transcoding,
refusals, headers), an EnvoyFilter carries the very resource that our own Envoys are served.
"""
