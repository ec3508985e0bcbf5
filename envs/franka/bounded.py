"""Calls that may hang, and shall not take the caller with them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")


class CallHangsError(Exception):
    """A call did not return in time. It may still go on, in a thread that nobody waits for."""


class BoundedCalls:
    """
    One call at a time, in a thread of its own. A call that hangs loses its thread: the next one gets another.

    Threads of ``concurrent.futures`` would not do: Python waits for them at its end, so a hung one would never let it.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[_Call | None] | None = None

    def run(self, call: Callable[[], Result], limit_s: float) -> Result:
        """
        :param call: what to do
        :param limit_s: how long it may take
        :return: what it returns; it raises what the call raises
        :raises CallHangsError: it has not returned
        """
        if self._calls is None:
            self._calls = SimpleQueue()
            threading.Thread(target=_work, args=(self._calls,), name="bounded-calls", daemon=True).start()
        order = _Call(call)
        self._calls.put(order)
        if not order.done.wait(limit_s):
            self._calls.put(None)  # should it ever return, its thread ends
            self._calls = None
            raise CallHangsError
        if order.error is not None:
            raise order.error
        return order.result

    def close(self) -> None:
        """Let the thread end."""
        if self._calls is not None:
            self._calls.put(None)
            self._calls = None


class _Call:
    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
        self.done = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None


def _work(calls: SimpleQueue[_Call | None]) -> None:
    while (order := calls.get()) is not None:
        try:
            order.result = order.call()
        except BaseException as error:  # the caller raises it
            order.error = error
        order.done.set()
