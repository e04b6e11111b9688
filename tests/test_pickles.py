"""Pickles are read without executing anything: allowed content is read, and attacks are refused."""

import gzip
import io
import pickle
import pickletools
import struct
import warnings
from collections import OrderedDict
from contextlib import suppress
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch
from numpy.core.multiarray import _reconstruct

from triptych.pipeline.errors import InputError
from triptych.pipeline.exchange.pickles import load_arrays

ARRAYS = [
    np.arange(12, dtype=np.float32).reshape(3, 4),
    np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    np.arange(24).reshape(2, 3, 4)[:, ::2],
    np.arange(24).reshape(2, 3, 4).transpose(1, 2, 0),
    np.array([1, -2], dtype=">i4"),
    np.array([True, False]),
    np.array(["甲", "bc"]),
    np.array([b"x", b"yz"]),
    np.array([1 + 2j]),
    np.array(3.5),
    np.zeros((0, 3), dtype=np.float16),
]


def equal(left, right):
    assert type(left) is type(right)
    if isinstance(left, np.ndarray):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)
        left[...] = left  # the array is writable
    else:
        assert left == right


@pytest.fixture
def read(tmp_path):
    def load_content(content):
        path = tmp_path / "file.pkl"
        path.write_bytes(content)
        return load_arrays(path)

    return load_content


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_pickle_protocol_is_read(read, protocol):
    # With numpy 2, protocol 5 stores the order of a transposed array's axes.
    for array in ARRAYS:
        equal(read(pickle.dumps(array, protocol)), array)
    plain = {"a": [1, 2.5, None, True, 2**80], ("b", b"\xff\0"): {1, 2}, "c": (frozenset({3}), {"é": "甲"})}
    assert read(pickle.dumps(plain, protocol)) == plain
    scalar = read(pickle.dumps(np.float32(0.1), protocol))
    assert scalar == np.float32(0.1)
    assert scalar.dtype == np.float32


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool, torch.bfloat16])
def test_tensors_become_arrays(read, protocol, dtype):
    whole = torch.arange(24).reshape(2, 3, 4).to(dtype)
    expected = whole.float() if dtype is torch.bfloat16 else whole
    content = pickle.dumps({"whole": whole, "view": whole[:, 1:].transpose(1, 2)}, protocol)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what torch deprecates is no news to users
        found = read(content)
    equal(found["whole"], expected.numpy())
    np.testing.assert_array_equal(found["view"], expected[:, 1:].transpose(1, 2).numpy())


def test_a_tensor_beyond_its_content_is_refused(read):
    content = pickle.dumps(torch.arange(4.0), 2)
    forged = content.replace(b"K\x04\x85", b"M\xff\x7f\x85")
    assert forged != content
    with pytest.raises(InputError):
        read(forged)


def test_a_tensor_whose_content_is_a_program_is_refused(read, tmp_path):
    class Attack:
        def __reduce__(self):
            return (torch.storage._load_from_bytes, (pickle.dumps(Touch(tmp_path / "touched")),))

    class Touch:
        def __init__(self, path):
            self.path = path

        def __reduce__(self):
            return (open, (str(self.path), "w"))

    with pytest.raises(InputError, match="tensor whose content cannot be read"):
        read(pickle.dumps(Attack()))
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_ordered_dicts_become_dicts(read, protocol):
    assert read(pickle.dumps(OrderedDict(b=1, a=[2]), protocol)) == {"b": 1, "a": [2]}


def test_pickles_of_python_2_are_read(read):
    """Its text and the content of its arrays are bytes: opcode U, one byte a character."""
    text = "很好".encode()
    assert read(b"\x80\x02U" + bytes([len(text)]) + text + b".") == text.decode("latin1")
    array = np.arange(3, dtype="<f4") - 1
    content = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x03\x85"
        b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x0c" + array.tobytes() + b"tb."
    )
    equal(read(content), array)


def test_module_names_of_numpy_2_are_read(read):
    content = pickle.dumps(ARRAYS[0], 2)
    newer = content.replace(b"numpy.core", b"numpy._core")
    if newer == content:
        newer = content.replace(b"numpy._core", b"numpy.core")
    assert newer != content
    equal(read(newer), ARRAYS[0])


def test_object_arrays_are_read_with_their_elements(read):
    array = np.empty(3, dtype=object)
    array[:] = ["甲", None, 1.5]
    equal(read(pickle.dumps(array)), array)
    nested = np.empty(2, dtype=object)
    nested[0], nested[1] = np.arange(3), [1, np.float32(2)]
    found = read(pickle.dumps(nested))
    np.testing.assert_array_equal(found[0], np.arange(3))
    assert found[1] == [1, 2]
    lists = np.empty(2, dtype=object)
    lists[0], lists[1] = [1, 2], [3, 4]
    assert read(pickle.dumps(lists)).tolist() == [[1, 2], [3, 4]]


def test_shared_and_circular_references_are_preserved(read):
    array, circular = np.arange(3), []
    circular.append(circular)
    found = read(pickle.dumps({"a": array, "b": array, "circular": circular}))
    assert found["a"] is found["b"]
    assert found["circular"][0] is found["circular"]


class Calls:
    """An object that is pickled as a call of a function."""

    def __init__(self, function, *arguments, state=None):
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.call


def pickled_call(module, name, *operands):
    """A pickle that calls a function by name, whether it exists or not."""
    texts = b"".join(b"X" + struct.pack("<I", len(text)) + text for text in (o.encode() for o in operands))
    return f"c{module}\n{name}\n".encode() + b"(" + texts + b"tR."


MARK = "touched"


def attacks(folder):
    import builtins
    import os

    touch = f"touch {folder / MARK}"
    writes = f"open({str(folder / MARK)!r}, 'w')"
    inner = np.empty(1, dtype=object)
    inner[0] = Calls(os.system, touch)
    array = np.arange(3)
    function, arguments, state = array.__reduce__()
    yield "os.system", pickle.dumps(Calls(os.system, touch))
    yield "os.system, protocol 0", pickle.dumps(Calls(os.system, touch), 0)
    yield "by another name", pickled_call("os", "system", touch)
    yield "subprocess", pickled_call("subprocess", "getoutput", touch)
    yield "eval", pickle.dumps(Calls(eval, writes))
    yield "exec", pickle.dumps(Calls(exec, writes))
    yield "__builtin__", pickled_call("__builtin__", "eval", writes)
    yield "import", pickle.dumps(Calls(__import__, "antigravity"))
    yield "getattr", pickle.dumps(Calls(getattr, array, "tofile"))
    yield "open", pickle.dumps(Calls(open, str(folder / MARK), "w"))
    yield "functools", pickle.dumps(partial(os.system, touch))
    yield "in a dict", pickle.dumps({"train": {"text": [Calls(os.system, touch)]}})
    yield "as a key", pickle.dumps({Calls(os.getcwd): 1})
    yield "in an array of objects", pickle.dumps(inner)
    yield "reduce in reduce", pickle.dumps(Calls(set, [Calls(eval, writes)]))
    yield "numpy.load", pickled_call("numpy", "load", str(folder / "x.npy"))
    yield "numpy.memmap", pickled_call("numpy", "memmap", str(folder / MARK), "uint8", "w+")
    yield "numpy.runstring", pickled_call("numpy.testing._private.utils", "runstring", writes)
    yield "numpy.f2py", pickled_call("numpy.f2py.diagnose", "run_command", touch)
    yield "dotted", pickled_call("numpy", "ndarray.tofile", str(folder / MARK))
    yield "dotted, protocol 4", b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93)R."
    yield "numpy's reconstruct of another type", pickle.dumps(Calls(_reconstruct, OrderedDict, (0,), b"b"))
    yield "an array's state of pointers", pickle.dumps(array).replace(b"\x8c\x02i8", b"\x8c\x02O8")
    yield (
        "a function's state",
        pickle.dumps(Calls(function, *arguments, state=state))[:-1] + b"0cnumpy\ndtype\n}b.",
    )
    yield "a structured dtype", pickle.dumps(np.zeros(2, dtype=[("a", "i4")]))
    yield "dates", pickle.dumps(np.zeros(2, dtype="M8[s]"))
    yield "a class's instance", pickle.dumps(Fraction(1, 3))
    yield "new object", pickletools.optimize(pickle.dumps(ValueError("x"), 4))
    yield "old instance", b"(S'%s'\nios\nsystem\n." % touch.encode()
    yield "extension", b"\x80\x02\x82\x01."
    yield "persistent id", b"\x80\x02X\x01\x00\x00\x00aQ."
    yield "a function alone", b"cnumpy\nndarray\n."
    yield "a bytearray of a terabyte", pickle.dumps(Calls(builtins.bytearray, 2**40))
    yield "a tensor", pickled_call("torch._utils", "_rebuild_parameter")
    yield "a set's own state", b"\x80\x02c__builtin__\nset\n}X\x08\x00\x00\x00__code__K\x01sb."


NAMES = [name for name, _ in attacks(__import__("pathlib").Path("x"))]


@pytest.mark.parametrize("name", NAMES)
def test_attacks_are_refused(read, tmp_path, name):
    content = dict(attacks(tmp_path))[name]
    with pytest.raises(InputError, match=r"file\.pkl: .*(nothing was executed|not a complete one)"):
        read(content)
    assert not (tmp_path / MARK).exists()


def test_plain_pickle_would_execute_the_attacks(tmp_path):
    worked = 0
    for _, content in list(attacks(tmp_path))[:3]:
        (tmp_path / MARK).unlink(missing_ok=True)
        pickle.loads(content)
        worked += (tmp_path / MARK).exists()
    assert worked == 3


def test_refused_name_is_in_the_message(read):
    with pytest.raises(
        InputError, match=r"the pickle asks for torch\._utils\._rebuild_parameter; only numpy arrays"
    ):
        read(pickled_call("torch._utils", "_rebuild_parameter"))


def test_damaged_pickle_is_an_input_error(read, tmp_path):
    whole = pickle.dumps({"a": ARRAYS[0], "b": ["x"] * 5}, 4)
    for stop in range(0, len(whole) - 1, 7):
        with pytest.raises(InputError):
            read(whole[:stop])
    deep = b"\x80\x02" + b"(" * 200_000 + b"l" * 200_000 + b"."
    with pytest.raises(InputError):
        read(deep)
    with pytest.raises(InputError, match="cannot be read"):
        load_arrays(tmp_path / "missing.pkl")


def test_random_byte_errors_raise_only_input_errors(read):
    content = bytearray(pickle.dumps({"a": ARRAYS[0], "b": [np.float32(1), "x"]}, 4))
    random = np.random.default_rng(0)
    for _ in range(500):
        copy = content.copy()
        for index in random.integers(0, len(content), size=2):
            copy[index] = random.integers(256)
        with suppress(InputError):
            read(bytes(copy))


def test_huge_memo_index_allocates_nothing(read):
    content = io.BytesIO()
    content.write(b"\x80\x02]r" + struct.pack("<I", 2**32 - 1) + b".")
    assert read(content.getvalue()) == []


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", r"the file is empty \(0 bytes\)"),
        (gzip.compress(b"x", mtime=0), "compressed by gzip; unpack it first"),
        (b"PK\x03\x04\x14", "a zip archive, as torch.save"),
        (b"\x93NUMPY\x01\x00", "one array in numpy's own format"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"hello", "not a pickle, or not a complete one"),
    ],
)
def test_what_is_no_pickle_is_called_what_it_is(tmp_path, content, kind):
    file = tmp_path / "file.pkl"
    file.write_bytes(content)
    with pytest.raises(InputError, match=rf"file\.pkl: .*{kind}"):
        load_arrays(file)
