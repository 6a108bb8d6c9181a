"""What config can be told about browsers."""

from __future__ import annotations

import pytest

from services.config.settings import ConfigSettings
from services.platform.settings import SettingsError, load

_NEEDED = {"PAYMESH_DATA": "data", "PAYMESH_LISTEN": "unix:config.sock", "PAYMESH_ENVOYS": "istio"}


def _origins(text: str) -> frozenset[str]:
    return load(ConfigSettings, {**_NEEDED, "PAYMESH_CORS_ORIGINS": text}).origins


def test_no_page_may_call_when_nothing_is_said() -> None:
    """The default is nobody."""
    assert _origins("") == frozenset()


def test_origins_are_split_at_commas() -> None:
    """Blanks around them do not matter, ports do."""
    said = _origins("https://shop.example, http://localhost:3000,")
    assert said == {"https://shop.example", "http://localhost:3000"}


@pytest.mark.parametrize(
    "text", ["*", "shop.example", "https://shop.example/", "https://Shop.example", "null", "https://*.example"]
)
def test_refused_when_it_is_no_origin_as_a_browser_says_it(text: str) -> None:
    """One that no browser would ever send, and above all "everybody", is a fault at start."""
    with pytest.raises(SettingsError, match="PAYMESH_CORS_ORIGINS"):
        _origins(text)
