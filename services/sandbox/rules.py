"""How a provider of payments is to misbehave: rules that a test sets, each for one order or for all, each wearing off.

GET, PUT /scripts/{alipay|wechat|cards}  {"rules": [rule, …], "bill_today"?: true, "sign_with"?: … (wechat)}; POST adds rules.

A rule: {"on", "do", "request_id"?, "times"?, "delay_ms"?, "count"?, "forge"?, "real"?}
  on          charge capture void refund query query_refund close · pay (the payer) · callback · bill
  request_id  the merchant's number of the charge or refund; "" (default): whichever comes first. Its own rule goes first.
  times       how often it applies, 1 by default; 0: until the script is replaced
  delay_ms    waited before, by any rule; with callbacks before the first sending, with reorder how long notices are held
do, with requests to the provider:
  slow  decline  insufficient_funds  processing_error
  error              the provider's "system error", nothing done        error_after  the same, done nevertheless
  hang  drop_before  no answer, nothing done                             hang_after   no answer, done nevertheless
  drop               done (a wallet's payer pays at once), then the socket is dropped
  fail_then_success  refused, yet done and paid, and the callback says so
  abnormal           a refund that fails later                           forge        the answer is forged as `forge` says
do, with pay: decline insufficient_funds
do, with callback: duplicate (`count` times at once, 50 by default) · reorder (`times` notices, or those of delay_ms, are sent
  newest first) · lose (an attempt never arrives) · late (after delay_ms) · forge (a forged copy goes first; "real": false: alone)
do, with bill: omit drift repeat stray (lines of the bill missing, a unit too high, twice, made up)
forge: signature and what else the provider names (each provider's docstring).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

REFUSALS = frozenset({"decline", "insufficient_funds", "processing_error", "error"})
IN_GENERAL = REFUSALS | {
    "slow", "hang", "hang_after", "drop", "drop_before", "error_after", "forge", "fail_then_success",
}  # fmt: skip
"""What every provider does alike."""
_LATER = IN_GENERAL - {"fail_then_success"}
WALLET: Mapping[str, frozenset[str]] = {
    "charge": IN_GENERAL,
    **dict.fromkeys(("refund", "query", "query_refund", "close"), _LATER),
    "pay": frozenset({"decline", "insufficient_funds", "slow"}),
    "callback": frozenset({"duplicate", "reorder", "lose", "late", "forge"}),
    "bill": frozenset({"omit", "drift", "repeat", "stray"}),
}
"""What a wallet does with which operation."""
_HIGHEST = {"times": 1_000_000, "delay_ms": 600_000, "count": 1_000}
RULES_MAX = 10_000


@dataclass(slots=True)
class Rule:
    """One misbehaviour; the module's docstring says what the fields mean."""

    on: str
    do: str
    request_id: str = ""
    times: int = 1
    delay_ms: int = 0
    count: int = 50
    forge: str = ""
    real: bool = True


@dataclass(slots=True)
class Rules:
    """The script of one provider: its rules and options.

    ``operations`` are what it can do wrong with what; ``callback_forgeries`` and ``answer_forgeries`` are what it can
    forge; ``choices`` its options with their values, the first one the default.
    """

    operations: Mapping[str, frozenset[str]]
    callback_forgeries: Collection[str]
    answer_forgeries: Collection[str]
    choices: Mapping[str, Sequence[object]] = field(default_factory=lambda: {"bill_today": (False, True)})
    rules: list[Rule] = field(default_factory=list)
    options: dict[str, object] = field(default_factory=dict)

    def set(self, wanted: Mapping[str, Any]) -> list[str]:
        """Replace the whole script; return what is wrong with it (then nothing changes)."""
        faults, rules = self._checked(wanted.get("rules", []))
        for name in sorted(wanted.keys() - {"rules"}):
            known = self.choices.get(name, ())
            if not any(type(each) is type(wanted[name]) and each == wanted[name] for each in known):
                faults.append(f"{name}: one of {list(known)}" if known else f"{name}: no such setting")
        if not faults:
            self.rules, self.options = rules, {name: wanted[name] for name in wanted.keys() - {"rules"}}
        return faults

    def add(self, wanted: Mapping[str, Any]) -> list[str]:
        """Add rules to those there are; return what is wrong with them (then nothing changes)."""
        faults, rules = self._checked(wanted.get("rules", []))
        faults += [f"{name}: only rules are added" for name in wanted.keys() - {"rules"}]
        if len(self.rules) + len(rules) > RULES_MAX:
            faults.append(f"rules: at most {RULES_MAX}")
        if not faults:
            self.rules += rules
        return faults

    def shown(self) -> dict[str, Any]:
        """Return the script as it stands: what wore off is gone."""
        return {"rules": [*map(dataclasses.asdict, self.rules)], **{name: self.option(name) for name in self.choices}}

    def option(self, name: str) -> object:
        """Return the value of an option."""
        return self.options.get(name, self.choices[name][0])

    def take(self, on: str, ids: Collection[str], only: Collection[str] = ()) -> Rule | None:
        """Return the rule for this operation on these request ids, and wear it off by one. ``only``: these deeds alone."""
        fits = [rule for rule in self.rules if rule.on == on and (rule.do in only if only else True)
                and (not rule.request_id or rule.request_id in ids)]  # fmt: skip
        if not fits:
            return None
        rule = min(fits, key=lambda each: not each.request_id)
        if rule.times == 1:
            self.rules.remove(rule)
        elif rule.times:
            rule.times -= 1
        return rule

    def _checked(self, wanted: object) -> tuple[list[str], list[Rule]]:
        if not isinstance(wanted, list) or len(wanted) > RULES_MAX:
            return [f"rules: a list of at most {RULES_MAX}"], []
        faults: list[str] = []
        rules: list[Rule] = []
        for index, each in enumerate(wanted):
            found = self._faults(each)
            faults += [f"rules[{index}].{fault}" for fault in found]
            if not found:
                rules.append(Rule(**each))
        return faults, rules

    def _faults(self, each: object) -> list[str]:
        kinds = {f.name: {"str": str, "int": int, "bool": bool}[str(f.type)] for f in dataclasses.fields(Rule)}
        if not isinstance(each, dict):
            return ["a rule is an object"]
        faults = [f"{name}: no such field" for name in each.keys() - kinds.keys()]
        faults += [f"{name}: a {kinds[name].__name__}" for name in each.keys() & kinds.keys()
                   if type(each[name]) is not kinds[name]]  # fmt: skip
        if faults:
            return faults
        on, do, forge = each.get("on", ""), each.get("do", ""), each.get("forge", "")
        deeds = self.operations.get(on)
        if deeds is None or do not in deeds:
            faults.append(
                f"on: one of {sorted(self.operations)}" if deeds is None else f"do: {on} knows {sorted(deeds)}"
            )
        known = self.callback_forgeries if on == "callback" else self.answer_forgeries
        if (do == "forge" and forge not in known) or (do != "forge" and forge):
            faults.append(f"forge: one of {sorted(known)}, with do forge alone")
        limits = [f"{name}: from 0 to {high}" for name, high in _HIGHEST.items() if not 0 <= each.get(name, 0) <= high]
        return faults + limits
