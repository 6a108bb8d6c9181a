"""protos/third_party, assembled from the wheels that also carry the compiled modules, so that the two cannot differ."""

from importlib import resources

from services.cli.generate import tree, validate

GOOGLE = {
    "google.api": ("annotations.proto", "client.proto", "field_behavior.proto", "http.proto", "httpbody.proto", "launch_stage.proto"),
    "google.rpc": ("code.proto", "error_details.proto", "status.proto"),
}
"""From googleapis-common-protos. `launch_stage` is there because `client` imports it."""


def write() -> None:
    """Replace protos/third_party."""
    files = {
        f"{package.replace('.', '/')}/{name}": resources.files(package).joinpath(name).read_text(encoding="utf-8")
        for package, names in GOOGLE.items()
        for name in names
    }
    files[validate.NAME] = validate.source()
    tree.replace(tree.THIRD_PARTY, files, "**/*.proto")
