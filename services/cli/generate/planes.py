"""gen/openapi, envoy/ and istio/: what services.mesh renders from the policy model, written down to be reviewed like code."""

import json
import tempfile
from importlib import import_module
from pathlib import Path
from types import ModuleType

from services.cli.generate import manifests, tree


def write() -> None:
    """Replace the rendered planes. Before services/mesh has a renderer there is nothing to write."""
    if openapi := _renderer("openapi"):
        text = json.dumps(openapi.document(), indent=2, ensure_ascii=False) + "\n"
        tree.write(tree.OPENAPI, text)
        tree.write(tree.OPENAPI_SHIPPED, text)
    if golden := _renderer("golden"):
        with tempfile.TemporaryDirectory() as made:
            for name, text in golden.files().items():
                tree.write(Path(made, name), text)
            tree.sync(Path(made), tree.ENVOY)
    if _renderer("istio"):
        with tempfile.TemporaryDirectory() as made:
            for name, content in manifests.files().items():
                tree.put(Path(made, name), content)
            tree.sync(Path(made), tree.ISTIO, keep=manifests.BY_HAND)


def _renderer(name: str) -> ModuleType | None:
    """The module, or None while it is not in the tree. One that is there and cannot be imported is an error."""
    mesh = tree.ROOT / "services" / "mesh"
    if not (mesh / f"{name}.py").exists() and not (mesh / name / "__init__.py").exists():
        print(f"  services.mesh.{name} is not in the tree: its plane is left as it is")
        return None
    return import_module(f"services.mesh.{name}")
