"""The linter of our contracts: what a policy lacks, and what to write.

A rule is a function from the contracts to pairs of an element and what is to be written there. It is about every contract
alike and knows none by name: what is true of one method alone is a test of that method.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.contract.lint import access, happenings, methods, services, shapes
from services.contract.lint.view import Complaint, View, file_of, name_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    from services.contract.lint.view import Rule

RULES: dict[str, Rule] = {
    rule.__name__: rule for rule in (*access.RULES, *methods.RULES, *services.RULES, *shapes.RULES, *happenings.RULES)
}


def complaints(described: FileDescriptorSet) -> Iterator[Complaint]:
    """Yield what is wrong with our files of a descriptor set, which has source info and all that they import."""
    view = View(described)
    for name, rule in RULES.items():
        for element, text in rule(view):
            yield Complaint(name, file_of(element).name, view.place(element).line, name_of(element), text)
