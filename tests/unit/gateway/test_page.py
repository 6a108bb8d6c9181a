"""The page shows everything in the document and needs nothing from another host."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

from services.contract.load import contract
from services.gateway.adapters import documents, page

DOCUMENTS = documents.load()
DOCUMENT = json.loads(DOCUMENTS.openapi)
HTML = DOCUMENTS.page.decode()

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Reading(HTMLParser):
    """Ids, links and whether every element is closed in order."""

    def __init__(self, text: str) -> None:
        """Read the whole text."""
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        found = dict(attrs)
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        if name := found.get("id"):
            self.ids.append(name)
        self.links += [value for key in ("href", "src", "action") if (value := found.get(key))]

    def handle_endtag(self, tag: str) -> None:
        """Close the element that is open."""
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()}")


PAGE = Reading(HTML)


def test_page_has_every_route() -> None:
    """Each REST method is an article with its verb, path and gRPC method."""
    for method in contract().methods.values():
        if method.http:
            assert method.name in PAGE.ids
            assert f"<code>{method.http.path}</code>" in HTML
            assert method.path in HTML


def test_page_has_every_schema_and_reason() -> None:
    """What the routes speak of is on the page too."""
    assert {f"schema-{name}" for name in DOCUMENT["components"]["schemas"]} <= set(PAGE.ids)
    assert {f"reason-{name}" for name in contract().reasons} <= set(PAGE.ids)


def test_page_names_no_other_host() -> None:
    """No link, source or style leads to another host, and the page's own policy forbids loading anything."""
    assert all(link.startswith(("#", "/openapi.json", "data:,")) for link in PAGE.links)
    text = re.sub(r"<pre.*?</pre>", "", HTML, flags=re.DOTALL)  # an example may name a host: it is text
    assert not re.search(r"https?:|//[a-z]|@import|url\(", text)
    assert "default-src &#39;none&#39;" in HTML or "default-src 'none'" in HTML
    assert "script" not in PAGE.tags


def test_page_is_well_formed_and_its_links_lead_somewhere() -> None:
    """Every element is closed in order, ids are unique, and each fragment exists."""
    assert PAGE.faults == []
    assert PAGE.open == []
    assert len(PAGE.ids) == len(set(PAGE.ids))
    assert {link[1:] for link in PAGE.links if link.startswith("#")} <= set(PAGE.ids)


def test_page_has_landmarks() -> None:
    """A screen reader finds language, title, navigation, main part, headings and a way past the navigation."""
    assert '<html lang="en">' in HTML
    assert {"title", "nav", "main", "h1", "h2", "h3"} <= PAGE.tags
    assert 'class="skip" href="#content"' in HTML
    assert HTML.count("<h1") == 1


def test_page_fits_the_edge() -> None:
    """Document and page stay below the 1 MiB that the edge buffers of an answer."""
    assert len(DOCUMENTS.page) < 1 << 20
    assert len(DOCUMENTS.openapi) < 1 << 20


def test_prose_escapes_what_it_is_given() -> None:
    """Text of the contract is text: markup in it is shown, not obeyed."""
    assert page.prose("<b>`a<b`</b>\n\n- one\n- two") == (
        "<p>&lt;b&gt;<code>a&lt;b</code>&lt;/b&gt;</p><ul><li>one</li><li>two</li></ul>"
    )


def test_rows_tell_the_rules() -> None:
    """A property shows its type, whether it is needed, and its limits."""
    by_name = {row.name: row for row in page.rows(DOCUMENT["components"]["schemas"]["RegisterUserRequest"])}
    assert by_name["password"].required
    assert "at least 10 characters" in by_name["password"].limits
    assert not by_name["phone"].required
