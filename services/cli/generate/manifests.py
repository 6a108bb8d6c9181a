"""istio/ as YAML that people read: what services.mesh.istio renders, and the descriptor set beside it."""

from importlib import import_module
from typing import Any

import yaml

from services.cli.generate import tree

BY_HAND = frozenset({"image/Dockerfile", "image/Dockerfile.dockerignore"})
"""What no contract says anything about."""
_SHORT, _WIDTH = 90, 1 << 16
"""What is short stands on one line; texts are not broken, so that who compares two sees what changed."""


def files() -> dict[str, bytes]:
    """Render every generated file below istio/: path -> content."""
    rendered = import_module("services.mesh.istio.tree")  # what it imports, an earlier stage may have to make
    policy = import_module("services.contract.load").contract()
    said = {path: _yaml(documents) for path, documents in rendered.files(policy).items()}
    return {**said, rendered.DESCRIPTORS: tree.DESCRIPTOR_SET.read_bytes()}


class _Dumper(yaml.SafeDumper):
    """Writes what is short on one line, the rest with a line for each member, and no aliases: it is read by people."""

    def ignore_aliases(self, data: object) -> bool:
        """Never point to a value that was written before."""
        del data
        return True

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:  # noqa: ANN401
        """Put a short list on one line."""
        node = super().represent_sequence(tag, sequence, flow_style)
        node.flow_style = _short(node.value)
        return node

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:  # noqa: ANN401
        """Put a few short members on one line."""
        node = super().represent_mapping(tag, mapping, flow_style)
        node.flow_style = _short([each for pair in node.value for each in pair])
        return node


def _short(nodes: list[yaml.Node]) -> bool:
    scalar = all(isinstance(node, yaml.ScalarNode) for node in nodes)
    return scalar and sum(len(node.value) + 2 for node in nodes) <= _SHORT


def _yaml(documents: list[dict[str, Any]]) -> bytes:
    text = yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=_WIDTH, allow_unicode=True)
    return text.encode()
