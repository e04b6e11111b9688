"""Read a pickle without executing anything in it: arrays, tensors, builtin containers, and nothing else.

A pickle names functions and calls them. This reader resolves no name to a function of Python or numpy. The few
names that pickled arrays need resolve to replacements defined here, which check their arguments and build a
plain array from bytes. numpy's own functions are not safe: a forged dtype makes them treat bytes as pointers.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.pipeline.errors import InputError

_PLAIN = (str, bytes, bytearray, bool, int, float, complex, type(None))
_DTYPE = re.compile(r"[<>=|]?(?:\?|[biufc]\d{1,2}|[SU]\d{1,9}|O8?)")


class _RefusedError(Exception):
    """The pickle asks for something other than a numpy array or a builtin container; the text says what."""


# By the first bytes: files that are taken for pickles.
_OTHER_KINDS = {
    b"\x1f\x8b": "a file compressed by gzip; unpack it first",
    b"PK\x03\x04": "a zip archive, as torch.save and numpy.savez write; unpack it, or save its content by pickle.dump",
    b"\x93NUMPY": "one array in numpy's own format; save a dict of the splits by pickle.dump",
    b"\x89HDF": "an HDF5 file; save its arrays as dicts by pickle.dump",
}


def _check_kind(path: Path, start: bytes) -> None:
    if not start:
        raise InputError(f"{path}: the file is empty (0 bytes); download or write it again")
    for magic, kind in _OTHER_KINDS.items():
        if start.startswith(magic):
            raise InputError(f"{path}: not a pickle but {kind}")


def load_arrays(path: Path) -> Any:
    """Read a pickle of numpy arrays and builtin containers.

    Parameters
    ----------
    path
        A file of any pickle protocol. Nothing that it names is executed or imported.

    Returns
    -------
    The pickled object: dicts, lists, tuples, sets, text, bytes, numbers, None, and arrays of bools, numbers,
    text or bytes. The elements of an array of objects are of these kinds too. A torch tensor becomes an array, an
    ordered dict a dict.

    Raises
    ------
    InputError
        The file is missing or damaged, or holds anything else.
    """
    try:
        with path.open("rb") as file:
            _check_kind(path, file.peek(8))
            # Python 2 pickled text and the content of arrays as bytes; Latin-1 reads both, one character a byte.
            return _plain(_Unpickler(file, encoding="latin1").load(), {})
    except _RefusedError as error:
        raise InputError(
            f"{path}: {error}; only numpy arrays and builtin containers are allowed, and nothing was executed. "
            "If you trust the file, load it yourself and save it again as dicts of numpy arrays"
        ) from error
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # a damaged pickle may raise any error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{path}: not a pickle, or not a complete one ({reason}); download or write it again"
        ) from error


# The class written in Python: in the C version a single opcode can make the memo allocate gigabytes.
class _Unpickler(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = re.sub(r"^numpy\._core\b", "numpy.core", module)
        if module == "__builtin__":
            module = "builtins"
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise _RefusedError(f"the pickle asks for {module}.{name}"[:200]) from None

    def persistent_load(self, pid: Any) -> Any:
        raise _RefusedError("the pickle refers to an object outside the file")

    def get_extension(self, code: int) -> None:
        raise _RefusedError(f"the pickle asks for extension {code}")


# The replacements are instances without attributes, so that no opcode can change them.


class _Call:
    """A function that a pickle may call."""

    __slots__ = ("__call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self.__call = call

    def __call__(self, *arguments: Any) -> Any:
        return self.__call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise _RefusedError("the pickle sets the state of a function")


class _Dtype:
    """A dtype of bools, numbers, text, bytes or objects; only the byte order of its state is read."""

    __slots__ = ("dtype",)

    def __init__(self, code: Any, *flags: Any) -> None:
        if not isinstance(code, str) or not _DTYPE.fullmatch(code):
            raise _RefusedError(f"the pickle holds an array of type {code!r}"[:200])
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        if self.dtype.kind not in "OSb" and state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """An array under construction: first empty, then filled by its state."""

    __slots__ = ("array",)

    def __init__(self) -> None:
        self.array: NDArray[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.array = _array(data, dtype, shape, "F" if fortran else "C")


def _array(data: Any, dtype: Any, shape: Any, order: str) -> NDArray[Any]:
    if not isinstance(dtype, _Dtype):
        raise _RefusedError("the pickle holds an array without a dtype")
    size = math.prod(shape)
    if dtype.dtype.hasobject:
        if not isinstance(data, list) or len(data) != size:
            raise _RefusedError("the pickle holds an array of objects that are not in a list")
        flat: NDArray[Any] = np.empty(size, dtype=object)
        seen: dict[int, Any] = {}
        for index, item in enumerate(data):  # one by one: numpy would turn lists of equal lengths into axes
            flat[index] = _plain(item, seen)
    elif size == 0:
        flat = np.empty(0, dtype=dtype.dtype)
    else:
        if isinstance(data, str):
            data = data.encode("latin1")
        if not isinstance(data, bytes | bytearray):
            raise _RefusedError("the pickle holds an array whose content is not bytes")
        flat = np.frombuffer(bytearray(data), dtype=dtype.dtype)  # a copy, so that it is writable
    return flat.reshape(shape, order="F" if order == "F" else "C")


def _scalar(dtype: Any, data: Any) -> Any:
    return _array(data, dtype, (), "C")[()]


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> _Array:
    result = _Array()
    if order == "K" and axes is not None:  # contiguous in another order of its axes, which `shape` is in
        result.array = _array(data, dtype, shape, "C").transpose(axes)
    else:
        result.array = _array(data, dtype, shape, order)
    return result


def _latin_bytes(text: str, encoding: str = "latin1") -> bytes:
    return text.encode("latin1")  # protocols before 3 store bytes as text


def _dict(items: Any = ()) -> dict[Any, Any]:
    return dict(items)


def _storage(data: Any) -> Any:
    """Read the content of a torch tensor, which is a file of its own, by torch's reader of weights alone."""
    if not isinstance(data, bytes):
        raise _RefusedError("the pickle holds a tensor whose content is not bytes")
    import torch

    try:
        storage = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds: it is a reader of damaged and forged files
        raise _RefusedError("the pickle holds a tensor whose content cannot be read") from error
    if not isinstance(storage, torch.storage.TypedStorage):
        raise _RefusedError(f"the pickle holds a {type(storage).__name__} in place of a tensor's content")
    return _Storage(storage)


class _Storage:
    """The content of a tensor."""

    __slots__ = ("__storage",)

    def __init__(self, storage: Any) -> None:
        self.__storage = storage

    def __setstate__(self, state: Any) -> None:
        raise _RefusedError("the pickle sets the state of a tensor's content")

    def array(self, offset: int, shape: Any, strides: Any) -> NDArray[Any]:
        """Return a copy of the elements as an array."""
        import torch

        numbers = (offset, *shape, *strides)
        if not all(type(number) is int and number >= 0 for number in numbers) or len(shape) != len(strides):
            raise _RefusedError("the pickle holds a tensor of no valid shape")
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the class that old pickles name is deprecated
            tensor, content = torch.empty(0, dtype=self.__storage.dtype), self.__storage.untyped()
        if (
            math.prod(shape) and (last + 1) * tensor.element_size() > content.nbytes()
        ):  # torch would make it larger
            raise _RefusedError("the pickle holds a tensor that is larger than its content")
        tensor.set_(content, offset, tuple(shape), tuple(strides))
        if tensor.dtype == torch.bfloat16:
            tensor = tensor.float()
        copied: NDArray[Any] = tensor.contiguous().numpy().copy()
        return copied


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Array:
    if not isinstance(storage, _Storage):
        raise _RefusedError("the pickle holds a tensor without content")
    result = _Array()
    result.array = storage.array(offset, shape, strides)
    return result


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Call(lambda *_: _Array()),
    ("numpy", "dtype"): _Call(_Dtype),
    ("numpy.core.multiarray", "_reconstruct"): _Call(lambda *_: _Array()),
    ("numpy.core.multiarray", "scalar"): _Call(_scalar),
    ("numpy.core.numeric", "_frombuffer"): _Call(_from_buffer),
    ("_codecs", "encode"): _Call(_latin_bytes),
    ("collections", "OrderedDict"): _Call(_dict),
    ("torch.storage", "_load_from_bytes"): _Call(_storage),
    ("torch._utils", "_rebuild_tensor_v2"): _Call(_tensor),
    ("builtins", "set"): _Call(set),
    ("builtins", "frozenset"): _Call(frozenset),
    ("builtins", "bytes"): _Call(lambda data=b"": _checked_bytes(data)),
    ("builtins", "bytearray"): _Call(lambda data=b"", *_: bytearray(_checked_bytes(data))),
    ("builtins", "complex"): _Call(complex),
}


def _checked_bytes(data: Any) -> bytes:
    if isinstance(data, str):
        return data.encode("latin1")
    if isinstance(data, bytes | list):
        return bytes(data)
    # A number would allocate as many zero bytes.
    raise _RefusedError("the pickle asks for a bytearray of something that is not bytes")


def _plain(value: Any, seen: dict[int, Any]) -> Any:
    """Replace each `_Array` by its array, and refuse every kind of object that is not allowed."""
    if isinstance(value, np.generic) or type(value) in _PLAIN:
        return value
    if id(value) in seen:
        return seen[id(value)][1]
    result: Any
    match value:
        case _Array():
            result = value.array
            if result is None:
                raise _RefusedError("the pickle holds an array without content")
        case list():
            result = []
            seen[id(value)] = value, result  # the reference keeps the value's id from being used again
            result += [_plain(item, seen) for item in value]
        case dict():
            result = {}
            seen[id(value)] = value, result
            result |= {_plain(key, seen): _plain(item, seen) for key, item in value.items()}
        case tuple() | set() | frozenset():
            result = type(value)(_plain(item, seen) for item in value)
        case _Dtype() | _Call() | _Storage():
            raise _RefusedError("the pickle holds a type or a function")
        case _:
            raise _RefusedError(f"the pickle holds a {type(value).__name__}")
    seen[id(value)] = value, result
    return result
