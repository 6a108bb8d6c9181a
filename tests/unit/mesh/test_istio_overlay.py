"""What two environments render differently, as patches."""

from __future__ import annotations

from typing import Any

import pytest

from services.mesh.istio.environment import BASE, host_of, port_of
from services.mesh.istio.manifest import document, duration
from services.mesh.istio.overlay import patches


def _scaler(least: int, **more: object) -> dict[str, Any]:
    return document("HorizontalPodAutoscaler", "payment", {"minReplicas": least, "maxReplicas": 7, **more})


def test_patch_has_what_differs_and_names_what_it_is_for() -> None:
    """Equal members are left out, equal documents too; a list is replaced as a whole."""
    same = document("Service", "payment", {"ports": [1, 2]})
    (patch,) = patches([_scaler(1, metrics=[1, 2]), same], [same, _scaler(3, metrics=[1])])
    assert patch == {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "payment", "namespace": "paymesh"},
        "spec": {"minReplicas": 3, "metrics": [1]},
    }


def test_what_a_patch_cannot_say_is_refused() -> None:
    """A member that goes away, a document that is on one side alone: a patch would silently leave it as it was."""
    with pytest.raises(AssertionError, match="takes nothing away"):
        patches([_scaler(1, metrics=[])], [_scaler(1)])
    with pytest.raises(AssertionError, match="not in the base"):
        patches([], [_scaler(1)])


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(250, "250ms"), (1000, "1s"), (1500, "1500ms"), (60_000, "1m"), (7_200_000, "2h"), (0, "0ms")],
)
def test_time_is_written_in_the_largest_whole_unit(milliseconds: int, text: str) -> None:
    """Istio takes no fractions of a unit."""
    assert duration(milliseconds) == text


def test_place_is_read_from_a_url_and_from_a_host_with_its_port() -> None:
    """The port of https is 443 where none is named."""
    assert (host_of(BASE.alipay_url), port_of(BASE.alipay_url)) == ("openapi.alipay.com", 443)
    assert (host_of(BASE.database), port_of(BASE.database)) == ("database.paymesh.example", 3306)
    assert (host_of("https://a.example:8443/x"), port_of("https://a.example:8443/x")) == ("a.example", 8443)
