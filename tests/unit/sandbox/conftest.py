"""The three providers with key material that is made once a run."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.sandbox import keys
from tests.unit.sandbox.merchants import AlipayMerchant, CardMerchant, WechatMerchant, World


@pytest.fixture(scope="session")
def key_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key material of a mesh; making RSA keys takes a second."""
    folder = tmp_path_factory.mktemp("mesh") / "providers"
    keys.make(folder)
    return folder


@pytest.fixture
async def world(key_folder: Path, tmp_path: Path) -> AsyncIterator[World]:
    """The three providers, their books empty."""
    folder = tmp_path / "providers"
    shutil.copytree(key_folder, folder)
    made = World(folder)
    yield made
    for each in made.acquirers.values():
        await each.stop()


@pytest.fixture
def alipay(world: World) -> AlipayMerchant:
    """A merchant of Alipay."""
    return AlipayMerchant(world)


@pytest.fixture
def wechat(world: World) -> WechatMerchant:
    """A merchant of WeChat Pay."""
    return WechatMerchant(world)


@pytest.fixture
def cards(world: World) -> CardMerchant:
    """A merchant of the card network."""
    return CardMerchant(world)
