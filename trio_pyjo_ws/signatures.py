"""Signatures that name each option of a function that takes ``**options``, for ``help()`` and for editors."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["MISSING", "shows"]

F = TypeVar("F", bound="Callable[..., Any]")


class _Missing:
    def __repr__(self) -> str:
        return "..."


MISSING: Any = _Missing()
"""Stands for an argument that was not given."""


def shows(*options: Any, defaults: Mapping[str, Any]) -> Callable[[F], F]:
    """Have :func:`inspect.signature` show the keys of these typed dictionaries, in place of ``**``.

    ``*misplaced: Never``, which is there to name a mistake, is not shown. A key without a default has :data:`MISSING`.
    Type checkers read ``Unpack`` and the overloads instead.
    """
    named = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=defaults.get(name, MISSING),
            annotation=getattr(annotation, "__forward_arg__", annotation),
        )
        for dictionary in options
        for name, annotation in dictionary.__annotations__.items()
    ]

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        kept = [
            each
            for each in signature.parameters.values()
            if each.kind is not inspect.Parameter.VAR_KEYWORD and each.annotation != "Never"
        ]
        decorated: Any = function
        decorated.__signature__ = signature.replace(parameters=[*kept, *named])
        return function

    return decorate
