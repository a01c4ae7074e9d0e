"""Calls of Python functions on the host that the persistent compilation cache can store.

A program with `jax.pure_callback` holds the address of a Python object. JAX never writes such a program to its cache,
and every process compiles it anew. `host_call` means the same, but on the CPU the program holds a *name*: the function
is registered as an XLA custom call, through XLA's C interface for foreign functions and `ctypes`, without a C compiler.

The structures below are the parts used here of ``xla/ffi/api/c_api.h`` (interface version 0.3; within major version 0
structures only grow at their end). On other platforms, under another major version, and for element types that NumPy
does not have, `host_call` is `jax.pure_callback`.
"""

import atexit
import contextlib
import ctypes
import functools
import math
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

ABI_MAJOR = 0
METADATA, EXECUTE, INTERNAL = 1, 3, 13  # kind of extension, stage of execution, code of error
DTYPES = {  # XLA's number of each element type
    1: np.bool_,
    2: np.int8,
    3: np.int16,
    4: np.int32,
    5: np.int64,
    6: np.uint8,
    7: np.uint16,
    8: np.uint32,
    9: np.uint64,
    10: np.float16,
    11: np.float32,
    12: np.float64,
    15: np.complex64,
    18: np.complex128,
}
ELEMENTS = set(map(np.dtype, DTYPES.values()))


class _Struct(ctypes.Structure):
    """What every structure of the interface begins with."""

    _fields_ = (("struct_size", ctypes.c_size_t), ("extension", ctypes.c_void_p))


class _Version(_Struct):
    _fields_ = (("major", ctypes.c_int), ("minor", ctypes.c_int))


class _Api(_Struct):
    _fields_ = (("version", _Version), ("internal", ctypes.c_void_p), ("error_create", ctypes.c_void_p))


class _ErrorArgs(_Struct):
    _fields_ = (("message", ctypes.c_char_p), ("code", ctypes.c_int))


class _Buffer(_Struct):
    _fields_ = (
        ("dtype", ctypes.c_int),
        ("data", ctypes.c_void_p),
        ("rank", ctypes.c_int64),
        ("dims", ctypes.POINTER(ctypes.c_int64)),
    )


class _Buffers(_Struct):
    _fields_ = (
        ("size", ctypes.c_int64),
        ("types", ctypes.c_void_p),
        ("items", ctypes.POINTER(ctypes.POINTER(_Buffer))),
    )


class _CallFrame(_Struct):
    _fields_ = (
        ("api", ctypes.POINTER(_Api)),
        ("context", ctypes.c_void_p),
        ("stage", ctypes.c_int),
        ("args", _Buffers),
        ("results", _Buffers),
    )


class _Metadata(ctypes.Structure):
    _fields_ = (("struct_size", ctypes.c_size_t), ("version", _Version), ("traits", ctypes.c_uint32))


class _Extension(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("kind", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("metadata", ctypes.POINTER(_Metadata)),
    )


_Handler = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_CallFrame))
_ErrorCreate = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_ErrorArgs))


def host_call(fun: Callable, name: str, result_shapes: PyTree, *args: PyTree) -> PyTree:
    """``jax.pure_callback(fun, result_shapes, *args, vmap_method="broadcast_all")`` in a program that can be cached.

    A program refers to `fun` by `name` and by how many different functions (or tree structures of arguments and
    results) have used that name before in this process. So a process that builds the same environments in the same
    order finds its programs in the cache, and two functions of one name are never confused. A function stays
    registered, and in memory, as long as the process: pass functions that compare equal where they mean the same,
    not a new one on each trace.

    Args:
        fun: pure function of NumPy arrays, called from any thread and from several at once. It sees read-only views of
            memory that is overwritten once it returns, with a leading axis for each enclosing ``vmap``. It must not
            run JAX computations.
        name: what the function computes, the same in every process, for example ``"SafetyPointGoal1-v0/contact"``.
        result_shapes: tree of arrays or `jax.ShapeDtypeStruct`, the results without batch axes.
        args: trees of arrays, any shapes.

    Returns:
        The results of `fun`, a tree like `result_shapes`. An exception of `fun` stops the program with a
        `jax.errors.JaxRuntimeError` that holds its traceback.

    Raises:
        ValueError: `name` is empty.
    """
    if not name:
        raise ValueError("host_call needs a name to find the program in the cache; pass what the function computes.")

    flat, in_tree = jax.tree.flatten(args)
    shapes, out_tree = jax.tree.flatten(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), result_shapes))

    def callback(*flat):
        on_numpy = functools.partial(_on_numpy, fun, in_tree)
        return jax.tree.leaves(jax.pure_callback(on_numpy, result_shapes, *flat, vmap_method="broadcast_all"))

    dtypes = {*map(jnp.result_type, flat), *(x.dtype for x in shapes)}
    target = _target(name, fun, in_tree, out_tree) if dtypes <= ELEMENTS and _has_cpu() else None
    if target is None or target.abi_major != ABI_MAJOR:
        out = callback(*flat)
    else:
        foreign = jax.ffi.ffi_call(target.name, shapes, vmap_method="broadcast_all")
        out = jax.lax.platform_dependent(*flat, cpu=foreign, default=callback)
    if varying := frozenset[str]().union(*map(_varying, flat)):
        out = jax.lax.pcast(out, tuple(varying), to="varying")
    return jax.tree.unflatten(out_tree, out)


def _varying(x: Any) -> frozenset[str]:
    """Axes of a `shard_map` over which `x` differs; JAX 0.10 renamed ``vma``."""
    kind: Any = jax.typeof(x)
    return kind.vma if hasattr(kind, "vma") else kind.mat.varying


def _on_numpy(fun: Callable, in_tree: Any, *flat: Any) -> Any:
    """What `fun` returns; `jax.pure_callback` hands out arrays of JAX."""
    return fun(*jax.tree.unflatten(in_tree, map(np.asarray, flat)))


def _has_cpu() -> bool:
    """Whether JAX may compute on the CPU. Starts the back ends, of which registration needs one."""
    try:
        return bool(jax.local_devices(backend="cpu"))
    except RuntimeError:
        return False


class _Target:
    """One registered function: the C function that XLA calls, and what it calls in turn.

    Attributes:
        name: what programs call it.
        abi_major: major version of XLA's interface, as XLA said on registration.
    """

    def __init__(self, name: str, fun: Callable, in_tree: Any, out_tree: Any):
        self.name, self.abi_major = name, None
        self._fun, self._in_tree, self._out_tree = fun, in_tree, out_tree
        self._handler = _Handler(self._handle)  # XLA keeps its address: it must live as long as the process
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(ctypes.cast(self._handler, ctypes.c_void_p).value))

    def _handle(self, frame) -> Any:
        """Answers XLA: null, or an error that XLA then owns. `ctypes` has taken the interpreter lock."""
        frame = frame.contents
        try:
            if frame.extension and (metadata := _metadata(frame.extension)):
                self._agree(frame, metadata)
            elif frame.stage == EXECUTE:
                self._execute(frame)
        except BaseException:  # nothing may pass into C++, and what is not returned would be lost
            args = _ErrorArgs(ctypes.sizeof(_ErrorArgs), None, traceback.format_exc().encode(), INTERNAL)
            return _ErrorCreate(frame.api.contents.error_create)(ctypes.pointer(args))
        return None

    def _agree(self, frame: _CallFrame, metadata: _Metadata) -> None:
        """Claims XLA's own version, so that registration succeeds; under another major one nothing will call it."""
        version = frame.api.contents.version
        metadata.version.major, metadata.version.minor = version.major, version.minor
        self.abi_major = version.major if frame.struct_size >= ctypes.sizeof(_CallFrame) else None

    def _execute(self, frame: _CallFrame) -> None:
        args = [_view(item.contents) for item in frame.args.items[: frame.args.size]]
        results = [_view(item.contents) for item in frame.results.items[: frame.results.size]]
        for x in args:
            x.flags.writeable = False
        values = jax.tree.leaves(self._fun(*jax.tree.unflatten(self._in_tree, args)))
        if len(values) != len(results):
            raise ValueError(
                f"{self.name} returned {len(values)} arrays; return {len(results)}, as result_shapes says."
            )
        for i, (result, value) in enumerate(zip(results, map(np.asarray, values))):
            dtype = jax.dtypes.canonicalize_dtype(value.dtype)
            if value.shape != result.shape or dtype != result.dtype:
                raise ValueError(
                    f"{self.name} returned {dtype}{list(value.shape)} as array {i}; "
                    f"return {result.dtype}{list(result.shape)}: result_shapes with the batch axes in front."
                )
            result[...] = value


@atexit.register
def _finish() -> None:
    """Waits for what still runs: a program that calls Python when the interpreter is gone hangs the process, or worse.

    A device works in order, so that whoever waits for a last operation has waited for all, also for programs whose
    results nobody holds.
    """
    if not _targets:
        return
    with contextlib.suppress(Exception):  # what went wrong in them was told, or nobody asked
        last = [jax.device_put(np.zeros(()), device) for device in jax.local_devices(backend="cpu")]
        jax.block_until_ready([jax.jit(jnp.negative)(x) for x in last])
        jax.block_until_ready([x for x in jax.live_arrays() if not x.is_deleted()])


_targets: dict[tuple, _Target] = {}
_uses: Counter[str] = Counter()
_lock = threading.Lock()


def _target(name: str, fun: Callable, in_tree: Any, out_tree: Any) -> _Target:
    """The registered function, which is registered on first use."""
    key = (name, fun, in_tree, out_tree)
    with _lock:
        if key not in _targets:
            _targets[key] = _Target(f"envs_mjx/{name}/{_uses[name]}", fun, in_tree, out_tree)
            _uses[name] += 1
        return _targets[key]


def _metadata(address: int | None) -> _Metadata | None:
    """What XLA asks of a function on registration, from the list of extensions at `address`."""
    while address:
        extension = _Extension.from_address(address)
        if extension.kind == METADATA:
            return extension.metadata.contents
        address = extension.next
    return None


def _view(buffer: _Buffer) -> np.ndarray:
    """XLA's memory as an array, without a copy."""
    dtype, shape = np.dtype(DTYPES[buffer.dtype]), tuple(buffer.dims[: buffer.rank])
    size = math.prod(shape)
    if size == 0:
        return np.empty(shape, dtype)
    memory = (ctypes.c_char * (size * dtype.itemsize)).from_address(buffer.data)
    return np.frombuffer(memoryview(memory), dtype).reshape(shape)
