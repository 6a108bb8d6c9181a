"""The rules of the house that no linter knows. Each yields one complaint a fault, and names the better way."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import PurePosixPath

from tests.architecture.tree import GENERATED, ROOMS, Tree, imports

TOP_LEVEL = frozenset(
    {
        ".ci",
        ".gitignore",
        "CHANGELOG.md",
        "LICENSE",
        "README.md",
        "buf.gen.yaml",
        "buf.yaml",
        "docs",
        "envoy",
        "gen",
        "istio",
        "protos",
        "pyproject.toml",
        "services",
        "tests",
        "tox.ini",
    }
)

FURNITURE = frozenset(
    {
        "__init__",
        "__main__",
        "app",
        "settings",
        "servicer",
        "consumer",
        "jobs",
        "usecases",
        "domain",
        "states",
        "ports",
        "store",
        "adapters",
        "clients",
        "audit",
        "mapping",
        "migrations",
    }
)

CARD = ("owns", "calls", "publishes", "consumes", "tables", "invariants")

EMPTY_NAMES = frozenset({"util", "utils", "helper", "helpers", "common", "manager", "base", "misc", "shared", "lib"})

PURE = ("usecases", "domain", "states", "ports")

DESIGN_CARD = {
    "grpcio": "grpc",
    "grpcio-tools": "grpc_tools",
    "grpcio-health-checking": "grpc_health",
    "grpcio-testing": "grpc_testing",
    "protobuf": "google.protobuf",
    "sqlalchemy": "sqlalchemy",
    "pymysql": "pymysql",
    "redis": "redis",
    "confluent-kafka": "confluent_kafka",
    "opentelemetry-sdk": "opentelemetry.sdk",
    "envoy-data-plane": "envoy_data_plane",
    "pytest": "pytest",
}
"""Package that the user asked for -> what using it imports."""

ENTRY_POINTS = {
    "invariants": "the audit of a room, imported by `paymesh verify` with the room's name",
    "files": "what mesh.golden renders, looked up by `paymesh generate`, which runs before mesh can be imported",
}
"""Names that are looked up in a module which is itself found by name."""

MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
MAIN_LINES_MAX = 15

_MACHINE = re.compile(r"(?<![\w.:/])/(?:work|farm|home|root|Users|opt/venv|tmp)/[\w.]")
_UNFINISHED = re.compile(r"#.*\b(?:TO[D]O|FIX[M]E|XX[X]|HAC[K])\b")
"""Written so that it does not find itself."""


def top_level(tree: Tree) -> Iterator[str]:
    """A further top-level entry is a decision, not an accident."""
    for name in sorted({path.parts[0] for path in tree.paths} - TOP_LEVEL):
        yield f"{name}: put it in one of the rooms, or add it to TOP_LEVEL with the reason in the commit message"


def furniture(tree: Tree) -> Iterator[str]:
    """A room has the furniture of every other room, and none of another name."""
    for path in tree.paths:
        if path.parts[0] != "services" or len(path.parts) < 3 or path.parts[1] not in ROOMS:
            continue
        piece = path.parts[2].removesuffix(".py")
        if piece not in FURNITURE or (len(path.parts) == 3 and path.suffix != ".py"):
            yield f"{path}: a room holds only {', '.join(sorted(FURNITURE - {'__init__', '__main__'}))}; put it in the one it is"


def room_cards(tree: Tree) -> Iterator[str]:
    """The docstring of a room says what one must know before opening another file of it."""
    for room in ROOMS:
        card = PurePosixPath("services", room, "__init__.py")
        if not any(path.parts[:2] == card.parts[:2] for path in tree.paths):
            continue
        if card not in tree.paths:
            yield f"{card}: missing; write the room card: {' · '.join(CARD)}"
            continue
        text = (ast.get_docstring(tree.parsed(card)) or "").lower()
        if missing := [word for word in CARD if word not in text]:
            yield f"{card}: the room card does not say what it {', '.join(missing)} (write `-` for nothing)"


def names(tree: Tree) -> Iterator[str]:
    """A name says what is inside."""
    for path in tree.paths:
        if path.parts[0] in {"services", "tests"} and path.suffix == ".py":
            for part in (*path.parts[1:-1], path.stem):
                if part in EMPTY_NAMES:
                    yield f"{path}: `{part}` says nothing; name it after what it holds, in the field's own word"


def packages(tree: Tree) -> Iterator[str]:
    """Every directory with modules is a package whose docstring says what for."""
    for directory in sorted({path.parent for path in tree.modules("services")}):
        init = directory / "__init__.py"
        if init not in tree.paths:
            yield f"{init}: missing; a package begins with a docstring that says what it is for"
        elif not ast.get_docstring(tree.parsed(init)):
            yield f"{init}: say in a docstring what the package is for"


def sizes(tree: Tree) -> Iterator[str]:
    """What does not fit a screen is two things."""
    for path in tree.modules("services", "tests"):
        if path.name in GENERATED:
            continue
        lines = tree.text(path).count("\n")
        if lines > MODULE_LINES_MAX and path.parts[0] == "services":
            yield f"{path}: {lines} lines; over {MODULE_LINES_MAX} it becomes a package of the same name"
        if "migrations" in path.parts:  # a list of statements, read from top to bottom
            continue
        for node in ast.walk(tree.parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES_MAX:
                    yield f"{path}:{node.lineno} {node.name}: {length} lines, cap {FUNCTION_LINES_MAX}; give a step a name"


def mains(tree: Tree) -> Iterator[str]:
    """`__main__` of a room reads settings, builds and serves; the rest stands in app.py."""
    for path in tree.modules("services"):
        if path.name == "__main__.py" and path.parts[1] in ROOMS:
            code = [line for line in tree.text(path).splitlines() if line.strip()]
            if len(code) > MAIN_LINES_MAX:
                yield f"{path}: {len(code)} lines, cap {MAIN_LINES_MAX}; move the work to app.py"


def servicers(tree: Tree) -> Iterator[str]:
    """A servicer parses, submits and renders; errors pass through it to the one place that maps them."""
    for path in tree.modules("services"):
        if path.parts[1] in ROOMS and path.parts[2].removesuffix(".py") == "servicer":
            for node in ast.walk(tree.parsed(path)):
                if isinstance(node, ast.Try | ast.TryStar):
                    yield f"{path}:{node.lineno} try: let the error pass; platform maps a DomainError to its status"


def machine_paths(tree: Tree) -> Iterator[str]:
    """Nothing in the tree knows the machine it was written on."""
    for path in tree.paths:
        if path.parts[0] == "gen":
            continue
        for number, line in enumerate(tree.text(path).splitlines(), 1):
            if found := _MACHINE.search(line):
                yield f"{path}:{number} {found.group()}…: take the path from settings, the XDG folders or tempfile"


def environment(tree: Tree) -> Iterator[str]:
    """Only settings read the environment, so that every fault of it is reported at once, at start."""
    for path in tree.modules("services"):
        owner, piece = path.parts[1], path.parts[2].removesuffix(".py") if len(path.parts) > 2 else ""
        if owner == "cli" or piece == "settings":
            continue
        for node in ast.walk(tree.parsed(path)):
            if _reads_environment(node):
                yield f"{path}:{getattr(node, 'lineno', 0)} reads the environment; make it a field of settings.py and pass it in"


def purity(tree: Tree) -> Iterator[str]:
    """The kernel is stdlib only; a room's decisions add the kernel and the room itself; the contract adds descriptors."""
    for path in tree.modules("services"):
        if len(path.parts) < 3:
            continue
        owner, piece = path.parts[1], path.parts[2].removesuffix(".py")
        if owner == "kernel":
            allowed: tuple[str, ...] = ("services.kernel",)
        elif owner == "contract":
            allowed = (
                "services.contract",
                "services.kernel",
                "google.protobuf",
                "google.api",
                "google.rpc",
                "paymesh",
                "buf",
            )
        elif owner in ROOMS and piece in PURE:
            allowed = ("services.kernel", f"services.{owner}")
        else:
            continue
        for name in imports(tree.parsed(path)):
            if name.split(".")[0] not in sys.stdlib_module_names and not _within(name, allowed):
                yield f"{path} imports {name}: only the standard library and {', '.join(allowed)} here; ask for it by a port"


def unfinished(tree: Tree) -> Iterator[str]:
    """What is not written is an issue, not a stub; what is hard to test gets a fake behind its port, not a patch."""
    for path in tree.modules("services", "tests"):
        for number, line in enumerate(tree.text(path).splitlines(), 1):
            if _UNFINISHED.search(line):
                yield f"{path}:{number} a note to oneself: file an issue, and say in the comment what is true today"
        module = tree.parsed(path)
        for node in ast.walk(module):
            if isinstance(node, ast.Name) and node.id == "NotImplementedError":
                yield f"{path}:{node.lineno} a stub: a Protocol states a need without a body"
        if any(_within(name, ("unittest.mock", "mock")) for name in imports(module)):
            yield f"{path} patches: implement the port in tests/fakes, and run the port's suite over it"


def told_tests(tree: Tree) -> Iterator[str]:
    """A test tells in a sentence what is promised, and checks it."""
    for path in tree.modules("tests"):
        if not path.name.startswith("test_"):
            continue
        for node in ast.walk(tree.parsed(path)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not node.name.startswith("test_"):
                continue
            if not ast.get_docstring(node):
                yield f"{path}:{node.lineno} {node.name}: say in a one-sentence docstring what is promised"
            if not any(_checks(inner) for inner in ast.walk(node)):
                yield f"{path}:{node.lineno} {node.name}: asserts nothing; compare what came out with what was promised"


def unused(tree: Tree) -> Iterator[str]:
    """What nothing in services/ names is not part of the program, whatever tests make of it."""
    modules = {path: tree.parsed(path) for path in tree.modules("services")}
    named = {name for path, module in modules.items() for name in _named_abroad(module, path.parts[1])}
    for path, module in modules.items():
        if path.name in GENERATED or "migrations" in path.parts:
            continue
        dotted = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        for node in module.body:
            others = [each for each in module.body if each is not node]
            for name in _defined(node):
                known = {f"{dotted}.{name}", f"{path.parts[1]}:{name}"} & named or name in ENTRY_POINTS
                if not known and not name.startswith("_") and not any(_names(other, name) for other in others):
                    yield f"{path}:{node.lineno} {name}: nothing in services/ names it; use it, or take it out with its tests"


def design_card(tree: Tree) -> Iterator[str]:
    """Every package that the user asked for by name is really used."""
    used = {name for path in tree.modules("services", "tests") for name in imports(tree.parsed(path))}
    for package, module in DESIGN_CARD.items():
        if not any(_within(name, (module,)) for name in used):
            yield f"{package}: nothing imports {module}; use it where its task is done by hand"


RULES = (
    top_level,
    furniture,
    room_cards,
    names,
    packages,
    sizes,
    mains,
    servicers,
    machine_paths,
    environment,
    purity,
    unfinished,
    told_tests,
    design_card,
    unused,
)


def _reads_environment(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom):
        return node.module == "os" and bool({alias.name for alias in node.names} & {"environ", "environb", "getenv"})
    return isinstance(node, ast.Attribute) and ast.unparse(node) in {"os.environ", "os.environb", "os.getenv"}


def _within(name: str, tops: tuple[str, ...]) -> bool:
    return any(name == top or name.startswith(f"{top}.") for top in tops)


def _checks(node: ast.AST) -> bool:
    if isinstance(node, ast.Assert | ast.Raise):
        return True
    return isinstance(node, ast.Call) and bool(
        re.search(r"raises|assert|check|expect|verify|fail", ast.unparse(node.func))
    )


def _defined(node: ast.stmt) -> Iterator[str]:
    """Names that a top-level statement gives; a function that is registered as a command is named by that."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        if not any(isinstance(each, ast.Call) for each in node.decorator_list) or isinstance(node, ast.ClassDef):
            yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (target.id for target in targets if isinstance(target, ast.Name))


def _names(root: ast.AST, name: str) -> bool:
    return any(isinstance(node, ast.Name) and node.id == name for node in ast.walk(root))


def _named_abroad(module: ast.Module, package: str) -> Iterator[str]:
    """Dotted names that a module takes from others, by import or through one; and words, as `package:word`.

    A room looks some of its own up by word (use cases by their kind, annotations in quotes).
    """
    aliases: dict[str, str] = {}
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and node.module:
            aliases |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    yield from aliases.values()
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
            yield f"{aliases[node.value.id]}.{node.attr}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            yield f"{package}:{node.value}"
