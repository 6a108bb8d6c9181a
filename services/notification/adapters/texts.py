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
            undefined=jinja2.StrictUndefined,
            autoescape=False,  # plain text: there is nothing to escape
        )
        self._templates: dict[str, tuple[jinja2.Template, jinja2.Template]] = {}
        for path in sorted(_FOLDER.glob(f"*{_ENDING}")):
            # Apart before they are rendered: a line break in a value must not move words from the one to the other.
            subject, _, text = path.read_text("utf-8").partition("\n")
            compiled = (environment.from_string(subject), environment.from_string(text))
            self._templates[path.name.removesuffix(_ENDING)] = compiled

    def render(self, occasion: str, values: Mapping[str, str]) -> Text:
        """Render; the subject is one line, whatever the values hold."""
        subject, text = (template.render(values) for template in self._templates[occasion])
        return Text(" ".join(subject.split())[:SUBJECT_MAX], text.strip())
