"""Reads pickles of NumPy arrays and torch tensors of numbers without unpickling them (see ``pickle_machine.py``).

The table below has the names that such pickles use, each with a function written here: the originals accept too much. Any
other name is a ``ValueError``, and so is damage. Memory stays within a small multiple of the pickle's size, and time within
seconds, because copied bytes and opcodes are counted (``pickle_machine.Budget``).

torch writes a tensor's numbers as a pickle within the pickle (``torch.storage._load_from_bytes``), which plain ``pickle``
would run with torch's own unrestricted loader. Here the same machine reads it, and the numbers that follow it are taken as
they lie there; torch itself is not needed.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers.demonstrations.pymarl.pickle_machine import Budget, Function, Stateful, run

# What running a damaged pickle can raise, besides ValueError.
_ERRORS = (
    *(LookupError, TypeError, AttributeError, ArithmeticError, AssertionError, RuntimeError, OSError, EOFError),
    *(MemoryError, struct.error, pickle.PickleError),
)


class Array(Stateful):
    """A NumPy array being built: created empty, then given its contents. ``value`` is an array, or a list of objects."""

    value: Any = None

    def set_state(self, state: Any) -> None:
        """What ``numpy.ndarray.__setstate__`` does, for numbers, and for objects in one dimension."""
        if type(state) is not tuple or len(state) != 5:
            raise ValueError("damaged pickle (an array's state that is none)")
        _, shape, dtype, fortran, content = state
        count = math.prod(_sizes(shape))
        if _is_dtype(dtype, "O"):
            if type(content) is not list or len(shape) != 1 or len(content) != count:
                raise ValueError(f"an object array of shape {shape} without as many objects")
            self.value = content
        else:
            self.value = _numbers(content, dtype, shape, "F" if fortran else "C")


class DType(Stateful):
    """A dtype of numbers or of objects."""

    def __init__(self, spec: Any) -> None:
        if type(spec) is not str or not re.fullmatch(r"[<>|=]?(b1|[iu][1248]|f[248]|O8?)", spec):
            name = repr(spec[:40]) if type(spec) is str else f"made of a {type(spec).__name__}"
            raise ValueError(f"it holds an array of dtype {name}, which is neither numbers nor objects")
        self.value = np.dtype("O") if "O" in spec else np.dtype(spec)

    def set_state(self, state: Any) -> None:
        """What ``numpy.dtype.__setstate__`` does: the byte order."""
        if self.value.kind != "O" and state[1] in ("<", ">"):
            self.value = self.value.newbyteorder(state[1])


def load(data: bytes) -> Any:
    """The object that a pickle holds: dicts with string keys, lists, tuples, numbers, strings and :class:`Array`.

    An object array comes as an :class:`Array` whose ``value`` is a list, a tensor as a NumPy array (a view of its storage).

    Raises:
        ValueError: The pickle is damaged or holds anything else, which is named.
    """
    stream, budget = io.BytesIO(data), Budget(len(data))

    def encode(text: Any, encoding: Any) -> bytes:  # as protocol 2 writes bytes
        if type(text) is not str or encoding != "latin1":
            raise ValueError("damaged pickle (bytes that are none)")
        budget.spend_copy(len(text))
        return text.encode("latin1")

    def storage(content: Any) -> NDArray[Any]:
        if type(content) is not bytes:
            raise ValueError("damaged pickle (a torch storage that is no bytes)")
        budget.spend_copy(len(content))
        return _storage(content, budget)

    copying = {"torch.storage._load_from_bytes": Function(storage), "_codecs.encode": Function(encode)}
    try:
        result = run(stream, {**_NAMES, **copying}, budget)
    except ValueError:
        raise
    except _ERRORS as error:
        raise ValueError(f"damaged pickle ({type(error).__name__}: {str(error)[:200]})") from None
    if stream.read(1):
        raise ValueError("damaged pickle (something follows it)")
    return result


def _sizes(shape: Any) -> tuple[int, ...]:
    if type(shape) is not tuple or len(shape) > 8 or not all(type(n) is int and 0 <= n < 2**48 for n in shape):
        raise ValueError("damaged pickle (a shape that is none)")
    return shape


def _is_dtype(dtype: Any, kinds: str) -> bool:
    if not isinstance(dtype, DType):
        raise ValueError("damaged pickle (a dtype that is none)")
    return dtype.value.kind in kinds


def _numbers(content: Any, dtype: Any, shape: Any, order: Any = "C") -> NDArray[Any]:
    if not _is_dtype(dtype, "biuf") or type(content) not in (bytes, bytearray) or order not in ("C", "F"):
        raise ValueError("damaged pickle (an array without numbers)")
    return np.frombuffer(content, dtype.value).reshape(_sizes(shape), order=order)


def _scalar(dtype: Any, content: Any) -> Any:
    return _numbers(content, dtype, (1,))[0]


def _storage(content: bytes, budget: Budget) -> NDArray[Any]:
    """The numbers of a torch storage, from what ``torch.storage._load_from_bytes`` is given."""
    stream = io.BytesIO(content)
    claims: list[tuple[str, int, np.dtype[Any]]] = []

    def claim(identity: Any) -> None:
        if type(identity) is not tuple or len(identity) != 6:
            raise ValueError("it holds a torch storage of an unknown form")
        kind, dtype, key, location, numel, view = identity
        if kind != "storage" or type(key) is not str or type(location) is not str or view is not None:
            raise ValueError("it holds a torch storage of an unknown form")
        if not isinstance(dtype, np.dtype) or type(numel) is not int:
            raise ValueError("damaged pickle (a torch storage without type or size)")
        claims.append((key, numel, dtype))

    # torch.save's older format: a magic number, a version, the writer's sizes, the storage, its keys, its bytes.
    head = [run(stream, {}, budget) for _ in range(3)]
    if head[:2] != [0x1950A86A20F9469CFC6C, 1001] or type(head[2]) is not dict or head[2].get("little_endian") is not True:
        raise ValueError("it holds a torch storage of an unknown form")
    run(stream, _STORAGES, budget, claim)
    keys = run(stream, {}, budget)
    if len(claims) != 1 or keys != [claims[0][0]]:
        raise ValueError("it holds a torch storage of an unknown form")
    _, numel, dtype = claims[0]
    size = len(content) - stream.tell() - 8
    if numel < 0 or numel * dtype.itemsize != size or stream.read(8) != struct.pack("<q", numel):
        raise ValueError(f"damaged pickle (a torch storage of {numel} numbers in {max(size, 0)} bytes)")
    return np.frombuffer(content, dtype, offset=stream.tell())


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> NDArray[Any]:
    """A view of a storage: ``torch._utils._rebuild_tensor_v2``, as a NumPy array."""
    if type(storage) is not np.ndarray or storage.ndim != 1:
        raise ValueError("damaged pickle (a tensor without storage)")
    size, stride, (offset,) = _sizes(size), _sizes(stride), _sizes((offset,))
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    # As many numbers as the storage has at most: a stride of 0 could claim any number of them.
    if not 0 < count <= len(storage) or last >= len(storage):
        raise ValueError("damaged pickle (a tensor larger than its storage)")
    strides = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides, writeable=False)


def _reconstruct(*_: Any) -> Array:
    return Array()


def _frombuffer(content: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any]:
    return _numbers(content, dtype, shape, order)


def _no_hooks(*arguments: Any) -> dict[str, Any]:
    if arguments:
        raise ValueError("damaged pickle (an OrderedDict with arguments)")
    return {}


# The classes of torch's storages; what was on a GPU is read into main memory.
_STORAGES = {
    f"{module}.{name}Storage": np.dtype(dtype)
    for module in ("torch", "torch.cuda")
    for name, dtype in {
        "Float": "<f4",
        "Double": "<f8",
        "Half": "<f2",
        "Long": "<i8",
        "Int": "<i4",
        "Short": "<i2",
        "Char": "i1",
        "Byte": "u1",
        "Bool": "?",
    }.items()
}
_NAMES: dict[str, Any] = {
    "numpy.ndarray": None,  # an argument of _reconstruct
    "numpy.dtype": Function(lambda spec, *_: DType(spec)),
    "torch._utils._rebuild_tensor_v2": Function(_tensor),
    "collections.OrderedDict": Function(_no_hooks),  # a tensor's hooks: none
}
for _core in ("numpy.core", "numpy._core"):  # before and since NumPy 2
    _NAMES[f"{_core}.multiarray._reconstruct"] = Function(_reconstruct)
    _NAMES[f"{_core}.multiarray.scalar"] = Function(_scalar)
    _NAMES[f"{_core}.numeric._frombuffer"] = Function(_frombuffer)
