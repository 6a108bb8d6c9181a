"""protos/third_party, assembled from the wheels that also carry the compiled modules, so that the two cannot differ."""

import subprocess
import sysconfig
import tempfile
from importlib import resources
from pathlib import Path

from services.cli.generate import tree, validate

GOOGLE = {
    "google.api": (
        "annotations.proto",
        "client.proto",
        "field_behavior.proto",
        "http.proto",
        "httpbody.proto",
        "launch_stage.proto",
    ),
    "google.rpc": ("code.proto", "error_details.proto", "status.proto"),
}
"""From googleapis-common-protos. `launch_stage` is there because `client` imports it."""


def write() -> None:
    """Replace protos/third_party, formatted like our own so that `buf format` has nothing to say about the tree."""
    with tempfile.TemporaryDirectory() as made:
        for package, names in GOOGLE.items():
            for name in names:
                content = resources.files(package).joinpath(name).read_bytes()
                tree.put(Path(made, *package.split("."), name), content)
        tree.write(Path(made, validate.NAME), validate.source())
        buf = Path(sysconfig.get_path("scripts"), "buf")
        subprocess.run([str(buf), "format", "--write", "."], cwd=made, check=True)
        tree.sync(Path(made), tree.THIRD_PARTY)
