"""A stack machine that reads a pickle without unpickling it: nothing that the pickle names is imported or called.

It runs the opcodes that ``pickle.dump`` writes, in protocols 2 to 5, for dicts with string keys, lists, tuples, numbers,
strings, bytes, and calls. A name is looked up in a table of the caller's functions; other names and opcodes are refused.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable, Mapping
from typing import Any

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
# Opcodes whose argument is the value.
_VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Function:
    """A function of the caller's, under the name of the one that it stands for."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call


class Stateful:
    """What such a function may return to be given a state afterwards (the opcode BUILD)."""

    def set_state(self, state: Any) -> None:
        """Take over a state, which may be anything.

        Raises:
            ValueError: It is no state of this object.
        """
        raise NotImplementedError


class Budget:
    """How much a pickle may still make of itself, together with the pickles within it.

    An opcode of one byte makes an object of about a hundred, and can copy others again and again. So both are counted:
    opcodes, and bytes that are copied.

    Args:
        size: The pickle's, in bytes.
    """

    def __init__(self, size: int) -> None:
        # The smallest real recordings have 3 bytes for each opcode, and some 90 opcodes an episode; the paper's 800 bytes.
        self.opcodes = 10_000 + min(size // 2, 1_000_000 + size // 200)
        self.copies = 2 * size  # a real pickle copies each byte once or twice

    def spend_opcode(self) -> None:
        """Count one opcode.

        Raises:
            ValueError: There were too many for a pickle of this size.
        """
        self.opcodes -= 1
        if self.opcodes < 0:
            raise ValueError("it makes more objects than a recording of its size has")

    def spend_copy(self, size: int) -> None:
        """Count bytes that are copied.

        Raises:
            ValueError: There were too many for a pickle of this size.
        """
        self.copies -= size
        if self.copies < 0:
            raise ValueError("its contents together are larger than itself")


def run(stream: io.BytesIO, names: Mapping[str, Any], budget: Budget, persistent: Callable[[Any], Any] | None = None) -> Any:
    """The object that the stream's next pickle holds; the stream is then behind it.

    Args:
        stream: Where to read.
        names: For each "module.name" that the pickle may use a :class:`Function`, or any value that is no function.
        budget: What it may spend.
        persistent: Called with the identity of an object that is stored elsewhere; None refuses those.

    Raises:
        ValueError: Another name or opcode, which is named, or damage.
        LookupError, TypeError, ...: Damage too, or what a function raises.
    """
    stack: list[Any] = []
    marked: list[list[Any]] = []
    memo: dict[int, Any] = {}
    argument: Any
    for opcode, argument, _ in pickletools.genops(stream):
        name = opcode.name
        budget.spend_opcode()
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "MARK":
            marked.append(stack)
            stack = []
        elif name in ("TUPLE", "APPENDS", "SETITEMS"):
            items, stack = stack, marked.pop()
            if name == "TUPLE":
                stack.append(tuple(items))
            elif name == "APPENDS":
                _extend(stack[-1], items)
            else:
                _update(stack[-1], items)
        elif name in _TUPLES:
            size = _TUPLES[name]
            if size > len(stack):
                raise ValueError("damaged pickle (a tuple of more than there is)")
            items = stack[len(stack) - size :]
            del stack[len(stack) - size :]
            stack.append(tuple(items))
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "APPEND":
            item = stack.pop()
            _extend(stack[-1], [item])
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            _update(stack[-1], [key, value])
        elif name == "GLOBAL":
            stack.append(_lookup(argument.replace(" ", ".", 1), names))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            if type(module) is not str or type(attribute) is not str:
                raise ValueError("damaged pickle (a name that is no string)")
            stack.append(_lookup(f"{module}.{attribute}", names))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            if not isinstance(function, Function) or type(arguments) is not tuple:
                raise ValueError("damaged pickle (a call of something that is no function)")
            stack.append(function.call(*arguments))
        elif name == "BUILD":
            state = stack.pop()
            if not isinstance(stack[-1], Stateful):
                raise ValueError("damaged pickle (a state for something that has none)")
            stack[-1].set_state(state)
        elif name == "BINPERSID" and persistent is not None:
            stack.append(persistent(stack.pop()))
        elif name == "STOP":
            if len(stack) != 1:
                raise ValueError(f"damaged pickle ({len(stack)} objects at its end, not one)")
            return stack[0]
        elif name == "PROTO":
            if not 2 <= argument <= pickle.HIGHEST_PROTOCOL:
                raise ValueError(f"it is of pickle protocol {argument}, but 2 to {pickle.HIGHEST_PROTOCOL} were expected")
        elif name != "FRAME":
            raise ValueError(f"it has the pickle opcode {name}, which arrays and tensors do not need")
    raise ValueError("damaged pickle (no end)")


def _extend(target: Any, items: list[Any]) -> None:
    if type(target) is not list:
        raise ValueError("damaged pickle (items for something that is no list)")
    target.extend(items)


def _update(target: Any, items: list[Any]) -> None:
    """Put keys and values, in turn, into a dict."""
    keys, values = items[::2], items[1::2]
    # Strings only: a key that is a deeply nested tuple would overflow the interpreter's stack when it is hashed.
    if type(target) is not dict or len(keys) != len(values) or not all(type(key) is str for key in keys):
        raise ValueError("damaged pickle (items for something that is no dict with strings as keys)")
    target.update(zip(keys, values, strict=True))


def _lookup(name: str, names: Mapping[str, Any]) -> Any:
    if name not in names:
        raise ValueError(f"it names {name[:100]!r}, which is not needed for arrays and tensors of numbers and never loaded")
    return names[name]
