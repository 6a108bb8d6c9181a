"""gRPC in: the configuration service behind its own Envoy, and xDS for every Envoy of the mesh."""
