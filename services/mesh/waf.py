"""What the edge refuses for its form, before it reads a body: attacks in the path, the query and what a client says of itself.

A rule is a regular expression (RE2, linear in the length of the text) that Envoy's RBAC filter denies by. It reads the path
as it was sent, so each character that means something stands here raw and percent-encoded, and a letter needs no disguise:
an encoded one is refused itself. Bodies are not looked at; docs/edge.md says what stands in their way instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from envoy_data_plane.envoy.config.rbac import v3 as rules
from envoy_data_plane.envoy.config.route import v3 as route
from envoy_data_plane.envoy.extensions.filters.http.rbac import v3 as rbac
from envoy_data_plane.envoy.type.matcher import v3 as matcher

from services.mesh.resource import http_filter

if TYPE_CHECKING:
    from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm

NAME = "waf"
"""Of the filter, and in front of a rule's name in its statistics and in the details of a refusal."""


def _any(*choices: str) -> str:
    return f"(?:{'|'.join(choices)})"


_SPACE = _any(r"\+", "%20", "%09", r"/\*[^*]*\*/", "%2f%2a[^*]*%2a%2f")
_GAP = f"{_SPACE}+"
_MAYBE = f"{_SPACE}*"
_QUOTE = _any("'", '"', "`", "%2[27]", "%60")
_OPEN = _any(r"\(", "%28")
_CLOSE = _any(r"\)", "%29")
_EQUALS = _any("=", "%3d")
_LESS = _any("<", "%3c")
_SLASH = _any("/", "%2f")
_EITHER_SLASH = _any("/", "%2f", r"\\", "%5c")
_COLON = _any(":", "%3a")
_BRACE = _any(r"\{", "%7b")
_SEMICOLON = _any(";", "%3b")
_CONNECTIVE = _any("or", "and", "xor", "[|]{2}", "(?:%7c){2}", "(?:%26){2}")
_COMPARED = _any("=", "%3d", "<", ">", "%3c", "%3e", f"like{_GAP}")
_SEPARATOR = _any(";", r"\|", "`", "&&", "%3b", "%7c", "%60", "%26%26", rf"(?:\$|%24){_OPEN}")
_HANDLERS = _any(
    "error", "load", "unload", "beforeunload", "click", "dblclick", "focus(?:in|out)?", "blur", "mouse[a-z]+", "key[a-z]+",
    "toggle", "animation[a-z]+", "transition[a-z]+", "begin", "start", "submit", "input", "pointer[a-z]+", "wheel",
    "scroll", "drag[a-z]*", "hashchange", "message", "pageshow", "resize", "copy", "cut", "paste",
)  # fmt: skip
_TAGS = _any(
    "script", "iframe", "object", "embed", "applet", "svg", "img", "body", "math", "meta", "link", "base", "form", "style",
    "video", "audio", "input", "button", "details", "marquee", "template", "xml", "!--", "!doctype",
)  # fmt: skip
_WORDS = _any(
    "cat", "type", "dir", "echo", "kill", "touch", "python[0-9]?", "perl", "ruby", "ping", "env", "rm", "curl", "sh"
)
"""Commands that are words of a sentence too: refused with an argument of a command's form."""
_COMMANDS = _any(
    "ls", "id", "whoami", "uname", "wget", "nc", "ncat", "netcat", "bash", "zsh", "ksh", "nslookup", "powershell", "cmd",
    "chmod", "printenv", "ifconfig", "netstat", "telnet", "tftp", "certutil",
)  # fmt: skip
_AFTER_COMMAND = _any(_SPACE, r"\.exe", "&", ";", r"\|", "%3b", "%7c", "%26", "%60", _CLOSE, "$")

PATH_RULES: dict[str, tuple[str, ...]] = {
    "encoding": (
        # Control characters, line ends among them; NUL.
        "%[01][0-9a-f]", "%7f",
        # A letter or a digit that nobody has to encode, and what is encoded twice to be decoded twice.
        "%(?:3[0-9]|4[1-9a-f]|5[0-9a]|6[1-9a-f]|7[0-9a])", "%25(?:[01][0-9a-f]|2[02-9a-f]|3[a-f]|5c|60|7[bcf])",
        # No encoding at all; UTF-8 longer than it has to be; the encoding of an old server.
        "%(?:[^0-9a-f]|[0-9a-f][^0-9a-f]|[0-9a-f]?$)", "%c[01]", "%f[5-9a-f]",
    ),
    "traversal": (
        rf"(?:\.|%2e){{2,}}{_EITHER_SLASH}",
        rf"{_EITHER_SLASH}\.(?:env|git|svn|hg|ssh|aws|kube|docker|htaccess|htpasswd|npmrc)(?:{_EITHER_SLASH}|[?&]|$)",
        f"etc{_SLASH}+(?:passwd|shadow|group|sudoers|hosts|crontab|ssh)", f"proc{_SLASH}+self", f"{_SLASH}bin{_SLASH}[a-z]*sh",
        rf"win(?:dows|nt)?{_EITHER_SLASH}+(?:system32|win\.ini)", r"boot\.ini",
    ),
    "sql": (
        f"union{_GAP}(?:(?:all|distinct){_GAP})?{_OPEN}?{_MAYBE}select",
        f"{_QUOTE}{_any(_SPACE, _CLOSE)}*{_CONNECTIVE}{_any(_SPACE, _OPEN, _QUOTE)}+[^&=]{{0,32}}{_COMPARED}",
        f"(?:or|and){_GAP}[0-9]+{_MAYBE}{_COMPARED}{_MAYBE}[0-9]",
        f"{_SEMICOLON}{_MAYBE}(?:drop|alter|create|truncate){_GAP}(?:table|database|schema|user|view|index)",
        f"{_SEMICOLON}{_MAYBE}(?:delete{_GAP}from|insert{_GAP}into|update{_GAP}[a-z0-9_.]+{_GAP}set)",
        f"{_SEMICOLON}{_MAYBE}(?:exec(?:ute)?{_GAP}|shutdown|declare{_GAP}(?:@|%40))",
        f"select{_GAP}(?:[*]|%2a|(?:count|version|concat|group_concat){_OPEN}|(?:@|%40){{2}})",
        f"(?:sleep|benchmark|pg_sleep|randomblob){_OPEN}[0-9.]+{_MAYBE}(?:{_CLOSE}|,|%2c)", f"waitfor{_GAP}delay",
        f"(?:extractvalue|updatexml|load_file|group_concat|utl_http[.][a-z]+|dbms_[a-z]+[.][a-z_]+){_OPEN}", "xp_cmdshell",
        "information_schema", "sqlite_master", "pg_(?:catalog|shadow)", "sysobjects", r"mysql\.user",
        f"{_QUOTE}{_CLOSE}*(?:--(?:{_SPACE}|-|&|$)|%23|/[*]|%2f%2a)", "/[*]!", f"into{_GAP}(?:out|dump)file",
    ),
    "script": (
        f"{_LESS}{_any(_SLASH, _SPACE)}*{_TAGS}", f"(?:java|vb|live)script{_MAYBE}{_COLON}",
        f"{_any(_SPACE, _SLASH, _QUOTE)}on{_HANDLERS}{_MAYBE}{_EQUALS}", f"data{_COLON}text{_SLASH}html",
        f"srcdoc{_MAYBE}{_EQUALS}",
        "document[.](?:cookie|write|location|domain)",
        f"(?:eval|alert|prompt|confirm){_OPEN}(?:[0-9]|{_QUOTE}|{_CLOSE}|document|window)",
        f"string[.]fromcharcode{_OPEN}",
    ),
    "command": (
        f"{_SEPARATOR}{_MAYBE}{_COMMANDS}{_AFTER_COMMAND}",
        f"{_SEPARATOR}{_MAYBE}{_WORDS}{_GAP}(?:-|[.]|~|[$]|[*]|%24|(?:[a-z]{_COLON})?{_EITHER_SLASH}|https?{_COLON}|[0-9])",
    ),
    "template": (rf"(?:\$|%24|%23){_BRACE}", rf"{_BRACE}(?:{_BRACE}|%25)", f"{_LESS}(?:%25|[?]|%3f)"),
    "address": (
        f"(?:file|gopher|dict|ldaps?|php|expect|jar|netdoc|phar|tftp){_COLON}{_SLASH}{{2}}",
        r"169\.254\.169\.254", r"100\.100\.100\.200", r"metadata\.google\.internal",
        rf"(?:https?|ftp){_COLON}{_SLASH}{{2}}(?:127\.|localhost|0\.0\.0\.0|(?:\[|%5b)::)",
    ),
}  # fmt: skip
"""Rule -> what of a path with its query it refuses."""

READ_HEADERS = (
    "user-agent",
    "referer",
    "cookie",
    "origin",
    "accept",
    "accept-language",
    "content-type",
    "idempotency-key",
)
"""What a client says of itself and of its call; the path's host and everything else goes no further than the edge."""
HEADER_RULE = (
    r"\$\{", r"\(\)\s*\{",
    rf"<\s*/?\s*{_TAGS}", r"javascript\s*:",
    r"union\s+(?:all\s+)?select\b", r"'\s*(?:or|and)\b[^=]{0,32}=",
)  # fmt: skip
"""What is refused in these: look-ups of a logger (Log4Shell), functions of a shell (Shellshock), markup, SQL."""
SCANNERS = _any(
    "sqlmap", "nikto", "nessus", "openvas", "nmap", "masscan", "zgrab", "wpscan", "dirbuster", "gobuster", "feroxbuster",
    "acunetix", "netsparker", "nuclei", "havij", "w3af", "arachni", "jorgee",
)  # fmt: skip
"""Tools that say their name."""


def regex(choices: tuple[str, ...]) -> str:
    """Join what a rule refuses; Envoy compares the whole text."""
    return f"(?i).*{_any(*choices)}.*"


def refusing_attacks() -> hcm.HttpFilter:
    """Refuse by form what no client of ours sends. Which rule it was is counted, and not said."""
    policies = {name: [_matches(":path", regex(choices))] for name, choices in PATH_RULES.items()}
    policies["header"] = [_matches(name, regex(HEADER_RULE)) for name in READ_HEADERS]
    policies["scanner"] = [_matches("user-agent", regex((SCANNERS,)))]
    denied = rules.Rbac(
        action=rules.RbacAction.DENY,
        policies={
            f"{NAME}_{name}": rules.Policy(permissions=permissions, principals=[rules.Principal(any=True)])
            for name, permissions in policies.items()
        },
    )
    return http_filter(NAME, rbac.Rbac(rules=denied, track_per_rule_stats=True))


def _matches(name: str, pattern: str) -> rules.Permission:
    text = matcher.StringMatcher(safe_regex=matcher.RegexMatcher(regex=pattern))
    return rules.Permission(header=route.HeaderMatcher(name=name, string_match=text))
