"""The tree keeps the rules of the house, and each rule can fail."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.architecture import rules
from tests.architecture.tree import Tree, planted, repository

Rule = Callable[[Tree], Iterator[str]]

LONG_FUNCTION = "def walk():\n" + "    step()\n" * 70
LONG_MODULE = "x = 1\n" * 401

FAULTS: dict[str, tuple[Rule, dict[str, str], str]] = {
    "a new top-level entry": (rules.top_level, {"scripts/run.py": ""}, "scripts"),
    "furniture of another name": (rules.furniture, {"services/user/queries.py": ""}, "services/user/queries.py"),
    "a file that is no module": (rules.furniture, {"services/user/store.sql": ""}, "services/user/store.sql"),
    "a room without a card": (rules.room_cards, {"services/user/app.py": ""}, "missing"),
    "a card that is silent": (rules.room_cards, {"services/user/__init__.py": '"""Owns users."""'}, "invariants"),
    "a name that says nothing": (rules.names, {"services/order/domain/utils.py": ""}, "utils"),
    "an empty package": (rules.packages, {"services/order/__init__.py": ""}, "docstring"),
    "no package": (rules.packages, {"services/order/app.py": ""}, "missing"),
    "a long module": (rules.sizes, {"services/order/store.py": LONG_MODULE}, "401 lines"),
    "a long function": (rules.sizes, {"services/order/store.py": LONG_FUNCTION}, "71 lines"),
    "a __main__ that works": (rules.mains, {"services/order/__main__.py": "x = 1\n" * 16}, "app.py"),
    "a servicer that catches": (
        rules.servicers,
        {"services/order/servicer.py": "try:\n    pass\nfinally:\n    pass\n"},
        "try",
    ),
    "a path of a machine": (rules.machine_paths, {"docs/how.md": f"see /{'home'}/me/x"}, "docs/how.md:1"),
    "the environment read by a store": (
        rules.environment,
        {"services/order/store.py": "import os\nurl = os.environ['URL']\n"},
        "settings",
    ),
    "the environment imported": (rules.environment, {"services/order/store.py": "from os import getenv\n"}, "settings"),
    "a kernel with a dependency": (rules.purity, {"services/kernel/ids.py": "import orjson\n"}, "orjson"),
    "a domain that knows the platform": (
        rules.purity,
        {"services/order/domain.py": "from services.platform import batcher\n"},
        "services.platform",
    ),
    "a contract with a wire": (rules.purity, {"services/contract/load.py": "import grpc\n"}, "grpc"),
    "a note to oneself": (rules.unfinished, {"services/order/app.py": f"# {'TO'}DO later\n"}, "issue"),
    "a stub": (rules.unfinished, {"services/order/app.py": f"raise Not{'Implemented'}Error\n"}, "Protocol"),
    "a patch": (rules.unfinished, {"tests/unit/test_x.py": "from unittest import mock\n"}, "fakes"),
    "a test without a sentence": (
        rules.told_tests,
        {"tests/unit/test_x.py": "def test_x():\n    assert 1\n"},
        "one-sentence",
    ),
    "a test without a check": (
        rules.told_tests,
        {"tests/unit/test_x.py": 'def test_x():\n    """X."""\n    print()\n'},
        "asserts nothing",
    ),
    "a function that nobody calls": (
        rules.unused,
        {
            "services/platform/money.py": "def fields():\n    return fields()\n",
            "services/user/app.py": "def fields_of(x):\n    return x.fields\n\n\nfields_of(1)\n",
        },
        "services/platform/money.py:1 fields",
    ),
    "a constant that only another of its name uses": (
        rules.unused,
        {
            "services/user/store.py": "KEEP = 1\n",
            "services/order/store.py": "KEEP = 2\nprint(KEEP)\n",
        },
        "services/user/store.py:1 KEEP",
    ),
    "a package of the card unused": (rules.design_card, {"services/order/app.py": "import grpc\n"}, "sqlalchemy"),
}


@pytest.fixture(scope="module")
def tree() -> Tree:
    """The project itself, listed once."""
    return repository()


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_tree_keeps_rule(rule: Rule, tree: Tree) -> None:
    """Nothing in the tree breaks the rule; a complaint names the better way."""
    complaints = list(rule(tree))
    assert not complaints, "\n" + "\n".join(complaints)


@pytest.mark.parametrize("fault", FAULTS)
def test_rule_complains_when_broken(fault: str, tmp_path: Path) -> None:
    """A planted fault is found, and the complaint points at it."""
    rule, files, expected = FAULTS[fault]
    complaints = list(rule(planted(tmp_path, files)))
    assert complaints
    assert expected in "\n".join(complaints)


def test_every_rule_has_a_planted_fault() -> None:
    """A rule that nothing proves able to fail is no rule."""
    assert {rule for rule, _, _ in FAULTS.values()} == set(rules.RULES)
