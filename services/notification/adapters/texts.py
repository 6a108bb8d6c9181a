"""Texts from the templates beside this file: the first line is the subject, the rest what it says, Chinese and English."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from services.notification.ports import Text

if TYPE_CHECKING:
    from collections.abc import Mapping

_FOLDER: Final = Path(__file__).parent / "templates"
_ENDING: Final = ".txt.jinja"
SUBJECT_MAX: Final = 200


class TemplateTexts:
    """Renders an occasion's template; all of them are compiled at once, so that a broken one is found at the start."""

    def __init__(self) -> None:
        """Read every template. A value that a template wants and does not get is an error."""
        environment = ImmutableSandboxedEnvironment(
            loader=jinja2.FileSystemLoader(_FOLDER),
            undefined=jinja2.StrictUndefined,
            autoescape=False,  # plain text: there is nothing to escape
        )
        names = environment.list_templates(filter_func=lambda name: name.endswith(_ENDING))
        self._templates = {name.removesuffix(_ENDING): environment.get_template(name) for name in names}

    @property
    def occasions(self) -> frozenset[str]:
        """What there is a text for."""
        return frozenset(self._templates)

    def render(self, occasion: str, values: Mapping[str, str]) -> Text:
        """Render; the subject is one line, whatever the values hold."""
        subject, _, text = self._templates[occasion].render(values).partition("\n")
        return Text(" ".join(subject.split())[:SUBJECT_MAX], text.strip())
