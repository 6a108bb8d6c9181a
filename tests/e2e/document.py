"""The OpenAPI document as a judge: whether an answer is one that it promises."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

if TYPE_CHECKING:
    import httpx

PATH = Path(__file__).parents[2] / "gen" / "openapi" / "paymesh.json"
_FORMATS = Draft202012Validator.FORMAT_CHECKER
_FAILED = 400
_URI = "urn:paymesh:openapi"


class Document:
    """gen/openapi/paymesh.json, stricter than it is for clients: an answer may not have a field that it does not name."""

    def __init__(self) -> None:
        """Read it and note nothing as seen."""
        self.text = PATH.read_text()
        self._content: dict[str, Any] = json.loads(self.text)
        for schema in self._content["components"]["schemas"].values():
            if "properties" in schema and not any(word in schema for word in ("allOf", "anyOf", "oneOf")):
                schema.setdefault("additionalProperties", False)
        resource = Resource.from_contents(self._content, default_specification=DRAFT202012)
        self._registry: Registry[Any] = Registry().with_resource(_URI, resource)
        self._operations = [
            (verb.upper(), path, re.compile(re.sub(r"\{[^}]+\}", "[^/]+", path).replace(".", r"\.")), operation)
            for path, operations in self._content["paths"].items()
            for verb, operation in operations.items()
        ]
        self.answered: set[tuple[str, str, int]] = set()
        """(verb, path template, HTTP status) of every answer that was judged."""

    @property
    def operations(self) -> set[tuple[str, str]]:
        """Every (verb, path template) that the document promises."""
        return {(verb, path) for verb, path, _, _ in self._operations}

    def judge(self, answer: httpx.Response) -> None:
        """Check an answer of the edge: status, media type, body, and of a refusal that its reason is announced."""
        found = self._operation(answer.request.method, answer.request.url.path)
        if found is None:
            assert answer.status_code in {404, 405}, (
                f"an answer that the document knows no operation for: {answer.text}"
            )
            return
        verb, path, operation = found
        where = f"{verb} {path} -> {answer.status_code}"
        promised = operation["responses"].get(str(answer.status_code))
        assert promised is not None, f"{where} is not promised: {answer.text[:600]}"
        response = self._follow(promised)
        media = answer.headers["content-type"].partition(";")[0]
        assert media in response["content"], f"{where} is {media}"
        if media == "application/json":
            body = answer.json()
            faults = self._faults(response["content"][media], body)
            assert not faults, f"{where}: {faults} in {answer.text[:1000]}"
            if answer.status_code >= _FAILED:
                reasons = {each["reason"] for each in body["details"] if "reason" in each}
                assert reasons <= set(response["x-paymesh-reasons"]), f"{where}: {reasons} is not announced"
        self.answered.add((verb, path, answer.status_code))

    def _operation(self, verb: str, path: str) -> tuple[str, str, dict[str, Any]] | None:
        # A template without parameters wins over one with: /api/users/login is no user.
        fits = [each for each in self._operations if each[0] == verb and each[2].fullmatch(path)]
        fits.sort(key=lambda each: each[1].count("{"))
        return (fits[0][0], fits[0][1], fits[0][3]) if fits else None

    def _follow(self, node: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in node:
            target: Any = self._content
            for part in node["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            node = target
        return node

    def _faults(self, media: dict[str, Any], body: object) -> list[str]:
        schema = media.get("schema", {})
        if "$ref" in schema:
            schema = {"$ref": _URI + schema["$ref"]}
        judge: Any = Draft202012Validator(schema, registry=self._registry, format_checker=_FORMATS)
        return [f"{each.json_path}: {each.message}" for each in judge.iter_errors(body)]
