"""Make payloads and queries of what clients send, with the strict rules of their classes.

A payload or query is refused only after all its faults were found, so that a client learns of all of them at once.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import Any, TypeVar, get_args

import attrs
from cattrs import ClassValidationError, Converter

from service.errors import InvalidPayload, InvalidQuery
from service.fields import UNKNOWN, Field, pointer
from service.http.payloads import P
from service.http.queries import PageQuery, Q

MAX_FAULTS = 20
"""The most faults of one payload or one query that an answer lists: each unknown key of a large body is a fault."""

T = TypeVar("T")


def read_payload(cls: type[P], value: object, most_faults: int = MAX_FAULTS) -> P:
    """Make a payload of a decoded JSON value.

    Raises InvalidPayload with a pointer to each fault, but to no more than `most_faults`.
    """
    if not isinstance(value, dict):
        raise InvalidPayload([("#", "must be a JSON object")][:most_faults], max(0, 1 - most_faults))
    payload, faults, left_out = _structure(_payloads, cls, value, most_faults, cls.faults(value))
    if payload is None:
        raise InvalidPayload([(pointer(where), what) for where, what in faults], left_out)
    return payload


def read_query(cls: type[Q], values: Mapping[str, list[str]], of: str = "") -> Q:
    """Make a query of its decoded values, each parameter's values in a list.

    `of` names the requested list: a cursor of another list is refused. Raises InvalidQuery with the parameter of each
    fault, but of no more than MAX_FAULTS.
    """
    asked: Mapping[str, Any] = values
    if issubclass(cls, PageQuery) and "after" in values:
        asked = {**values, "after": [(of, cursor) for cursor in values["after"]]}
    query, faults, left_out = _structure(_queries, cls, asked, MAX_FAULTS)
    if query is None:
        raise InvalidQuery(faults, left_out)
    return query


def _structure(
    converter: Converter,
    cls: type[T],
    values: Mapping[str, Any],
    most: int,
    whole: Sequence[tuple[str, str]] = (),
) -> tuple[T | None, list[tuple[str, str]], int]:
    """Make an object of a class; or give None, the first faults, at most `most`, and how many more there are.

    `whole` are faults that were found already. Values that the class does not know are counted, but only the first of
    them are looked at: a body of 4 MB may have 300,000, and to make a set of their names, as cattrs would, holds up
    every other request for 0.1 s.
    """
    made, faults = None, [*whole]
    known = _names(cls)  # type: ignore[arg-type]  # mypy does not know that classes can be hashed.
    try:
        made = converter.structure(values, cls)
    except ClassValidationError as error:
        for fault in error.exceptions:
            where = next(note.name for note in fault.__notes__ if hasattr(note, "name"))
            faults.append((where, "is required" if isinstance(fault, KeyError) else str(fault)))
    if values.keys() <= known and not faults:
        return made, [], 0
    count = len(faults) + len(values) - sum(name in values for name in known)
    faults += ((name, UNKNOWN) for name in islice((name for name in values if name not in known), most))
    return None, faults[:most], max(0, count - most)


@cache
def _names(cls: type[Any]) -> frozenset[str]:
    return frozenset(attrs.fields_dict(cls))


def _from_json(kind: Any) -> Callable[[Any, Any], Any]:
    rule: Field = kind.__metadata__[0]
    return lambda value, _: rule.check(value)


def _from_query(kind: Any) -> Callable[[Any, Any], Any]:
    base, rule = get_args(kind)
    read = {int: _integer, bool: _boolean}.get(base, lambda value: value)

    def only(values: list[Any], _: object) -> Any:
        if len(values) > 1:
            raise ValueError("is given more than once")
        return rule.check(read(values[0]))

    return only


def _integer(text: str) -> int | str:
    return int(text) if re.fullmatch("[0-9]{1,19}", text) else text


def _boolean(text: str) -> bool | str:
    return {"true": True, "false": False}.get(text, text)


def _converter(hook: Callable[[Any], Callable[[Any, Any], Any]]) -> Converter:
    converter = Converter()
    converter.register_structure_hook_factory(lambda kind: hasattr(kind, "__metadata__"), hook)
    return converter


_payloads = _converter(_from_json)
_queries = _converter(_from_query)
