"""The OpenAPI document as one HTML page for people: no script, nothing from another host.

Swagger UI was looked at: the release that its wheel carries cannot read OpenAPI 3.1, and is 1.2 MB of script a page.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import jinja2
from markupsafe import Markup, escape

if TYPE_CHECKING:
    from collections.abc import Iterator

Json = dict[str, Any]

_CODE: Final = re.compile(r"`([^`]+)`")
_LIMITS: Final = {
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minimum": "from {}",
    "x-minimum": "from {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "to {}",
    "x-maximum": "to {}",
    "exclusiveMaximum": "less than {}",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "pattern": "matches {}",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A parameter or property. ``link`` names the schema that ``kind`` speaks of, or is ""."""

    name: str
    place: str
    kind: str
    link: str
    required: bool
    limits: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Body:
    """What is sent or comes back: its media types, the name of its schema or "", its fields, an example or ""."""

    media_types: str
    schema: str
    fields: tuple[Row, ...]
    example: str
    text: str


@dataclass(frozen=True, slots=True)
class Failure:
    """An HTTP status with the reasons behind it."""

    status: str
    title: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """One route. ``facts`` are (what, value) pairs of its policy."""

    name: str
    tag: str
    verb: str
    path: str
    summary: str
    text: str
    facts: tuple[tuple[str, str], ...]
    parameters: tuple[Row, ...]
    body: Body | None
    answer: Body
    failures: tuple[Failure, ...]


def render(document: Json) -> str:
    """The page of an OpenAPI document that `services.mesh.openapi` made."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["prose"] = prose
    files = resources.files("services.gateway.adapters")
    style = files.joinpath("page.css").read_text(encoding="utf-8")
    template = environment.from_string(files.joinpath("page.html.jinja").read_text(encoding="utf-8"))
    found = list(operations(document))
    return template.render(
        info=document["info"],
        style=Markup(style),  # noqa: S704 - our own file
        style_digest=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        groups=[(tag, [o for o in found if o.tag == tag["name"]]) for tag in document["tags"]],
        schemas=[(name, schema, rows(schema)) for name, schema in document["components"]["schemas"].items()],
        reasons=document["components"]["examples"],
    )


def operations(document: Json) -> Iterator[Operation]:
    """Every route, in the document's order."""
    for path, verbs in document["paths"].items():
        for verb, operation in verbs.items():
            answers = {status: _resolved(document, answer) for status, answer in operation["responses"].items()}
            yield Operation(
                name=operation["operationId"],
                tag=operation["tags"][0],
                verb=verb.upper(),
                path=path,
                summary=operation["summary"],
                text=operation["description"],
                facts=tuple(_facts(operation["x-paymesh-policy"])),
                parameters=tuple(_parameter(_resolved(document, p)) for p in operation.get("parameters", [])),
                body=_body(document, operation["requestBody"]) if "requestBody" in operation else None,
                answer=_body(document, answers["200"]),
                failures=tuple(
                    Failure(status, answer["description"].partition("\n")[0], tuple(answer["x-paymesh-reasons"]))
                    for status, answer in answers.items()
                    if status != "200"
                ),
            )


def rows(schema: Json) -> list[Row]:
    """The properties of an object's schema. Of an answer none is called required: that is a word for those who send."""
    needed = schema.get("required", []) if "additionalProperties" in schema else []
    return [_row(name, "", s, required=name in needed) for name, s in schema.get("properties", {}).items()]


def prose(text: str) -> Markup:
    """Paragraphs, lists of lines that begin with `- `, and code between backticks; everything else is escaped."""
    blocks = []
    for block in re.split(r"\n\n+", text.strip()):
        lines = block.split("\n")
        if lines[0].startswith("- "):
            items = "\n".join(lines).removeprefix("- ").split("\n- ")
            blocks.append("<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in items) + "</ul>")
        elif block:
            blocks.append(f"<p>{_inline(block)}</p>")
    return Markup("".join(blocks))  # noqa: S704 - every part was escaped


def _inline(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", str(escape(text)))


def _resolved(document: Json, node: Json) -> Json:
    """Follow a `$ref` inside the document."""
    found: Any = document
    for part in node.get("$ref", "").removeprefix("#/").split("/"):
        found = found[part] if part else node
    return dict(found)


def _parameter(parameter: Json) -> Row:
    schema = {**parameter["schema"], "description": parameter.get("description", "")}
    return _row(parameter["name"], parameter["in"], schema, required=parameter["required"])


def _row(name: str, place: str, schema: Json, *, required: bool) -> Row:
    kind, link = _kind(schema)
    limits = [*_limits(schema), *(f"each item {limit}" for limit in _limits(schema.get("items", {})))]
    if schema.get("x-paymesh-data-class"):
        limits.append(f"data class {schema['x-paymesh-data-class']}")
    return Row(name, place, kind, link, required, tuple(limits), schema.get("description", ""))


def _limits(schema: Json) -> list[str]:
    return [words.format(schema[key]) for key, words in _LIMITS.items() if key in schema]


def _kind(schema: Json) -> tuple[str, str]:
    """(words for the type, name of the schema that they link to or "")."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return name, name
    if "anyOf" in schema:  # or null
        return _kind(schema["anyOf"][0])
    if "array" in schema.get("type", ""):
        kind, link = _kind(schema["items"])
        return f"list of {kind}", link
    form, kind = schema.get("format"), schema.get("type", "any")
    words = kind if isinstance(kind, str) else " or ".join(each for each in kind if each != "null")
    return (f"{words} ({form})" if form else words), ""


def _body(document: Json, node: Json) -> Body:
    media_types, content = " or ".join(node["content"]), next(iter(node["content"].values()))
    schema = content.get("schema", {})  # raw bytes have none
    _, link = _kind(schema)
    example = json.dumps(content["example"], indent=2, ensure_ascii=False) if "example" in content else ""
    fields = rows(_resolved(document, schema))
    return Body(media_types, link, tuple(fields), example, node.get("description", ""))


def _facts(policy: Json) -> Iterator[tuple[str, str]]:
    """The policy of a route in words."""
    yield "Access", _access(policy)
    yield "Time-out", f"{policy['timeout_ms'] / 1000:g} s"
    if limit := policy["rate_limit"]:
        everywhere = ", over all edges" if limit["global"] else ""
        yield "Limit", f"{limit['requests']} calls per {limit['per_ms'] // 1000} s by {limit['by']}{everywhere}"
    yield "Idempotency key", str(policy["idempotency"]["mode"])
    if retry := policy["retry"]["attempts"]:
        times = "once" if retry == 1 else f"{retry} times"
        yield "Retried by the mesh", f"{times}, on {', '.join(policy['retry']['on']).replace('_', ' ')}"
    yield "gRPC", policy["method"]


def _access(policy: Json) -> str:
    """Who may call, and whose data is reached."""
    who = {"public": "anybody", "user": "a signed-in user"}.get(policy["auth"], f"scope {' + '.join(policy['scopes'])}")
    owner = policy["owner"]
    if not owner:
        return who
    lifted = f"; others' with {owner['lifted_by']}" if owner["lifted_by"] else ""
    return f"{who}, own data only{lifted}"
