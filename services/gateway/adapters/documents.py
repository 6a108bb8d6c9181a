"""The documents: generation ships the OpenAPI file inside the package `paymesh`, the page is rendered from it."""

from __future__ import annotations

import json
from importlib import resources

from services.gateway.adapters.page import render
from services.gateway.domain import Documents


def load() -> Documents:
    """Read the document and render its page."""
    text = resources.files("paymesh").joinpath("openapi.json").read_bytes()
    return Documents(openapi=text, page=render(json.loads(text)).encode())
