# -*- test-case-name: tests.policy.test_schema_bounds -*-
"""What a JSON Schema may cost: it refers to itself only, and no payload can have it evaluated without end.

Each payload is checked in the reactor, so the time has to be bounded by what stands in the configuration. A schema of
60 lines can refer to its parts twice at each of 40 levels, which is 2**40 evaluations of one number; and one that
refers to itself twice at one place doubles them with each level of the payload.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

MOST_DEPTH = 64
MOST_PARTS = 10_000
MOST_EVALUATIONS = 10_000
"""How often the parts of a schema may be evaluated for one value, all references followed."""
DIALECTS = ("https://json-schema.org/draft/2020-12/schema", "https://json-schema.org/draft/2020-12/schema#")

# Keywords with schemas, by what these are for: the value itself, its members, or its elements. Those that share a name
# in the second place never meet in one member or element.
_HERE, _MEMBER, _ELEMENT = "here", "member", "element"
_ONE = {
    **{name: (_HERE, name) for name in ("not", "if", "then", "else")},
    "additionalProperties": (_MEMBER, "named"),
    "unevaluatedProperties": (_MEMBER, "unevaluated"),
    "propertyNames": (_MEMBER, "names"),
    "items": (_ELEMENT, "items"),
    "contains": (_ELEMENT, "contains"),
    "unevaluatedItems": (_ELEMENT, "unevaluated"),
}
_LISTS = {**{name: (_HERE, name) for name in ("allOf", "anyOf", "oneOf")}, "prefixItems": (_ELEMENT, "items")}
_MAPPINGS = {
    "dependentSchemas": (_HERE, "dependentSchemas"),
    "properties": (_MEMBER, "named"),
    "patternProperties": (_MEMBER, "pattern"),
}
_REFERENCES = ("$ref", "$dynamicRef")
Step = tuple[str, str, int]
"""Where a schema leads: for the value, a member or an element; the group of its keyword; and the number of the part."""


def check_bounds(schema: Mapping[str, Any]) -> int:
    """How many parts of a schema may be at fault for one value, at most: what telling one fault of it costs.

    `ValueError` where it refers outside, is too large, or could be evaluated too often.
    """
    anchors = _read(schema)
    parts, steps = _steps(schema, anchors)
    components = _components(steps)
    number = {part: index for index, component in enumerate(components) for part in component}
    costs: list[int] = []
    for index, component in enumerate(components):  # those that it leads to come before it
        cost = len(component)
        for part in component:
            inner = [step for step in steps[part] if number[step[2]] == index]
            _check_recursion(inner, parts[part])
            cost += sum(costs[number[step[2]]] for step in steps[part] if number[step[2]] != index)
        if cost > MOST_EVALUATIONS:
            raise ValueError(
                f"takes more than {MOST_EVALUATIONS} evaluations, all references followed: make it smaller"
            )
        costs.append(cost)
    _check_depth(steps)
    return max(1, *(sum(costs[number[target]] for target in _together(found)) for found in steps))


def _read(schema: Any) -> dict[str, Any]:
    """The parts that have an anchor, by its name. Looks at the whole document."""
    anchors: dict[str, Any] = {}
    level, count = [schema], 0
    for depth in range(MOST_DEPTH + 1):
        if not level:
            return anchors
        count += len(level)
        if count > MOST_PARTS:
            raise ValueError(f"has more than {MOST_PARTS} parts")
        below: list[Any] = []
        for value in level:
            if isinstance(value, Mapping):
                for name in ("$anchor", "$dynamicAnchor"):
                    if isinstance(value.get(name), str):
                        anchors[value[name]] = value
                if depth and isinstance(value.get("$id"), str):
                    raise ValueError("has an $id in a part: only the whole may have one")
                below += value.values()
            elif isinstance(value, list):
                below += value
        level = below
    raise ValueError(f"is nested deeper than {MOST_DEPTH} levels")


def _steps(schema: Any, anchors: Mapping[str, Any]) -> tuple[list[Any], list[list[Step]]]:
    """The parts that are evaluated, the whole first, and where each leads."""
    parts: list[Any] = [schema]
    numbers = {id(schema): 0}
    steps: list[list[Step]] = []
    while len(steps) < len(parts):
        found: list[Step] = []
        for kind, group, part in _below(parts[len(steps)], schema, anchors):
            if id(part) not in numbers:
                numbers[id(part)] = len(parts)
                parts.append(part)
            found.append((kind, group, numbers[id(part)]))
        steps.append(found)
    return parts, steps


def _below(part: Any, schema: Any, anchors: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    if not isinstance(part, Mapping):
        return
    for name, value in part.items():
        if name in _REFERENCES:
            yield _HERE, name, _target(value, schema, anchors)
        elif name in _ONE:
            yield *_ONE[name], value
        elif name in _LISTS and isinstance(value, list):
            for each in value:
                yield *_LISTS[name], each
        elif name in _MAPPINGS and isinstance(value, Mapping):
            kind, group = _MAPPINGS[name]
            for key, each in value.items():
                yield kind, key if group == "pattern" else group, each


def _target(reference: Any, schema: Any, anchors: Mapping[str, Any]) -> Any:
    if not isinstance(reference, str) or not reference.startswith("#"):
        raise ValueError(f"refers to {reference!r}: a reference must begin with #, nothing is read from elsewhere")
    fragment = unquote(reference[1:])
    if fragment and not fragment.startswith("/"):
        if fragment not in anchors:
            raise ValueError(f"refers to {reference}, which it has not")
        return anchors[fragment]
    found = schema
    for name in fragment.split("/")[1:]:
        key = name.replace("~1", "/").replace("~0", "~")
        try:
            found = found[int(key) if isinstance(found, list) else key]
        except (LookupError, TypeError, ValueError):
            raise ValueError(f"refers to {reference}, which it has not") from None
    return found


def _check_recursion(inner: list[Step], part: Any) -> None:
    """At each place, one way at most may lead back."""
    here = sum(kind == _HERE for kind, _, _ in inner)
    ways = [len({group for kind, group, _ in inner if kind == below}) for below in (_MEMBER, _ELEMENT)]
    if here + max(ways) > 1:
        keys = ", ".join(sorted(map(str, part)))
        raise ValueError(
            f"refers to itself in more than one way where it has {keys}: each level of a payload multiplies the time"
        )


def _together(found: list[Step]) -> list[int]:
    """The parts that are evaluated for the same value as the part that leads there, unless it only refers to one."""
    here = [(group, target) for kind, group, target in found if kind == _HERE]
    alone = len(here) == 1 and here[0][0] in _REFERENCES
    return [] if alone else [target for _, target in here]


def _check_depth(steps: list[list[Step]]) -> None:
    """A part that leads back to itself has to go deeper into the payload on the way."""
    here = [[step for step in found if step[0] == _HERE] for found in steps]
    for component in _components(here):
        part = component[0]
        if len(component) > 1 or any(step[2] == part for step in here[part]):
            raise ValueError("refers to itself without going deeper into the payload: it would say nothing")


def _components(steps: list[list[Step]]) -> list[list[int]]:
    """The parts that lead to each other, as groups; those that a group leads to come before it (Tarjan)."""
    order: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    waiting: set[int] = set()
    found: list[list[int]] = []
    for root in range(len(steps)):
        work = [] if root in order else [(root, iter(steps[root]))]
        while work:
            part, rest = work[-1]
            if part not in order:
                order[part] = low[part] = len(order)
                stack.append(part)
                waiting.add(part)
            for _, _, target in rest:
                if target not in order:
                    work.append((target, iter(steps[target])))
                    break
                if target in waiting:
                    low[part] = min(low[part], order[target])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[part])
                if low[part] == order[part]:
                    at = stack.index(part)
                    found.append(stack[at:])
                    waiting -= set(stack[at:])
                    del stack[at:]
    return found
