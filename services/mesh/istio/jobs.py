"""Work that is done once a release: schemas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.mesh.istio.manifest import IMAGE, Json, document
from services.mesh.istio.settings import database
from services.mesh.istio.workload import container_security, pod_security

if TYPE_CHECKING:
    from services.contract.model import Service

MIGRATIONS = "migrations"
"""The ServiceAccount of the jobs."""
STEP = {"step": "migrate"}
"""The label of the jobs and of what they need: a release applies these first."""


def migration(policy: Service) -> Json:
    """Bring a room's database to the newest schema, outside the mesh: it calls nobody in it."""
    name = f"{policy.name}-migrate"
    url = {"name": f"PAYMESH_{policy.name.upper()}_DATABASE_URL", "valueFrom": database(policy.name)}
    container = {
        "name": "migrate",
        "image": IMAGE,
        # What `paymesh migrate` does, for the databases that the environment names.
        "command": ["python", "-P", "-m", "services.cli.migrate"],
        "env": [url],
        "securityContext": container_security(),
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 a folder of the container
    }
    labels = {"app": name, **STEP, "zone": "management", "sidecar.istio.io/inject": "false"}
    spec = {
        "backoffLimit": 3,
        "activeDeadlineSeconds": 900,
        # The next release applies it again under the same name.
        "ttlSecondsAfterFinished": 300,
        "template": {
            "metadata": {"labels": labels},
            "spec": {
                "serviceAccountName": MIGRATIONS,
                **pod_security(),
                "restartPolicy": "Never",
                "containers": [container],
                "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}],
            },
        },
    }
    return document("Job", name, spec, labels={"app": name, **STEP})
