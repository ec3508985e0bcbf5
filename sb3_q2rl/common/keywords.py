"""What the constructors of an algorithm and of its parents take."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable

from stable_baselines3.common.base_class import BaseAlgorithm

NOT_FOR_USERS = {"self", "env", "_init_setup_model"}


def own_keywords(algorithm: type[BaseAlgorithm]) -> set[str]:
    """
    :param algorithm: A class
    :return: the keywords that its constructor takes; one with ``**kwargs`` hands them on to its parent's
    """
    names: set[str] = set()
    for kind in algorithm.__mro__:
        parameters = inspect.signature(kind.__init__).parameters.values()  # type: ignore[misc]
        names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return names - NOT_FOR_USERS


def check_load_keywords(algorithm: type[BaseAlgorithm], given: Iterable[str]) -> None:
    """
    SB3 would keep a keyword with a typing error as an attribute that nobody reads.

    :param algorithm: Whose ``load`` it is
    :param given: Its keywords, but for those that ``load`` itself has
    :raises TypeError: one that neither the algorithm nor a parent of it knows
    """
    known = set().union(*(own_keywords(kind) for kind in algorithm.__mro__ if issubclass(kind, BaseAlgorithm)))
    for name in set(given) - known:
        alike = difflib.get_close_matches(name, known, n=1)
        meant = f" Did you mean `{alike[0]}`?" if alike else ""
        raise TypeError(f"`load` of {algorithm.__name__} was given the unknown `{name}`.{meant}")
