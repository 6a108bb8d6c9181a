"""An overlay: what another environment renders differently, as patches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.mesh.istio import certificates
from services.mesh.istio.manifest import IMAGE, NAMESPACE, SETTINGS, Json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from services.mesh.istio.environment import Environment

_SAME: Json = {}


def patches(base: Iterable[Json], other: Iterable[Json]) -> list[Json]:
    """Return a merge patch for each document that differs. Both hold the same documents, in any order."""
    wanted = {identity(each): each for each in other}
    made = []
    for each in base:
        if difference := _difference(each, wanted.pop(identity(each))):
            metadata = {key: each["metadata"][key] for key in ("name", "namespace")}
            made.append({"apiVersion": each["apiVersion"], "kind": each["kind"], "metadata": metadata, **difference})
    assert not wanted, f"not in the base: {sorted(wanted)}"
    return made


def identity(document: Json) -> tuple[str, str]:
    """Return what tells a document from all others: its kind and its name."""
    return document["kind"], document["metadata"]["name"]


def _difference(base: Json, other: Json) -> Json:
    """Return the members of `other` that `base` has not so. Lists are replaced as a whole."""
    assert base.keys() <= other.keys(), "a merge patch takes nothing away"
    made = {}
    for key, value in other.items():
        before = base.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            if inner := _difference(before, value):
                made[key] = inner
        elif value != before:
            made[key] = value
    return made


def kustomization(env: Environment, base: Environment, services: Iterable[str]) -> Json:
    """Put base and services together for an environment."""
    before = base.literals()
    changed = {name: value for name, value in env.literals().items() if value != before[name]}
    return {
        "resources": ["../../base", *(f"../../services/{name}" for name in services), "issuers.yaml"],
        "patches": [{"path": "differences.yaml"}],
        "images": [{"name": IMAGE, "newName": env.image, "newTag": env.tag}],
        **({"configMapGenerator": [settings(changed, behavior="merge")]} if changed else {}),
    }


def settings(literals: Mapping[str, str], **more: str) -> Json:
    """Make the ConfigMap of what services are told; its name gets a hash, so that a change is a rollout."""
    said = [f"{name}={value}" for name, value in sorted(literals.items())]
    return {"name": SETTINGS, "namespace": NAMESPACE, **more, "literals": said}


def issuers(env: Environment) -> list[Json]:
    """Return the documents that an environment has alone."""
    return certificates.issuers(env)
