"""Descriptors -> frozen policy model.

Reads the options of ``paymesh.mesh.v1`` from the generated descriptors, once, into plain frozen dataclasses. The model
has no word of Envoy's, Istio's or gRPC's servers: each plane renders it in its own words.
"""
