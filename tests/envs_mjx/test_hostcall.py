"""`host_call` means what `jax.pure_callback` means, and other processes find its programs in the cache."""

import functools
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_mjx import hostcall
from envs_mjx.hostcall import host_call

ROOT = Path(__file__).parents[2]
AXES = {"x": 1, "n": None, "on": 0}


class Mixed:
    """A function of a tree of three element types; remembers the shapes that it saw."""

    def __init__(self):
        self.shapes = set()

    def __call__(self, tree, bias):
        x, n, on = (np.asarray(tree[name]) for name in ("x", "n", "on"))
        self.shapes.add((x.shape, n.shape, on.shape, np.shape(bias)))
        flipped = np.where(on[..., None], -x[..., ::-1], x) + np.asarray(bias)[..., None]
        return {"count": n + 1, "y": flipped.astype(np.float32)}, [~on]


def tree(*batch):
    rng = np.random.default_rng(len(batch))
    x = jnp.asarray(rng.normal(size=(*batch, 3)), jnp.float32)
    return {"x": x, "n": jnp.asarray(rng.integers(-9, 9, batch), jnp.int32), "on": jnp.asarray(rng.random(batch) < 0.5)}


def shapes_of(tree):
    return {"count": tree["n"], "y": jax.ShapeDtypeStruct((3,), jnp.float32)}, [tree["on"]]


def once(call, x, bias):
    return call(x, bias)


def batch(call, x, bias):
    return jax.vmap(call, (0, None))(x, bias)


def nested(call, x, bias):
    return jax.vmap(jax.vmap(call, (AXES, None)), (0, 0))(x, bias)


def scanned(call, x, bias):
    def body(x, b):
        out = jax.vmap(call, (0, None))(x, b)
        return {"x": out[0]["y"], "n": out[0]["count"], "on": out[1][0]}, out

    return jax.lax.scan(body, x, bias + jnp.arange(5.0))


def looped(call, x, bias):
    def body(x):
        (out, (on,)) = call(x, bias)
        return {"x": out["y"], "n": out["count"], "on": on}

    return jax.lax.while_loop(lambda x: x["n"] < 20, body, x)


def branched(call, x, bias):
    def one(x):
        return jax.lax.cond(x["on"], lambda: call(x, bias), lambda: jax.tree.map(jnp.zeros_like, shapes_of(x)))

    return jax.lax.map(one, x)


CASES = {
    "once": (once, tree(), 0.5),
    "batch": (batch, tree(4), 0.5),
    "nested": (
        nested,
        {"x": tree(2, 5)["x"].swapaxes(1, 2), "n": tree(2)["n"], "on": tree(2, 5)["on"]},
        jnp.array([1.0, 2.0]),
    ),
    "scan": (scanned, tree(4), 0.5),
    "while_loop": (looped, tree(), 0.5),
    "cond": (branched, tree(6), 0.5),
}


def by_name(fun):
    return lambda x, bias: host_call(fun, "test/mixed", shapes_of(x), x, bias)


def by_callback(fun):
    return lambda x, bias: jax.pure_callback(fun, shapes_of(x), x, bias, vmap_method="broadcast_all")


def assert_same(out, expected):
    assert jax.tree.structure(out) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(out), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_equals_pure_callback(case, compiled):
    program, x, bias = CASES[case]
    mine, other = Mixed(), Mixed()
    run, reference = (lambda x, b: program(by_name(mine), x, b)), (lambda x, b: program(by_callback(other), x, b))
    out = jax.jit(run)(x, bias) if compiled else run(x, bias)
    assert_same(out, jax.jit(reference)(x, bias))
    assert mine.shapes == other.shapes


@pytest.mark.smoke
@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint8", "int16", "int32", "uint32", "float16", "float32", "complex64"]
)
def test_element_types_and_layouts(dtype):
    x = jnp.asarray(np.random.default_rng(0).integers(0, 100, (5, 3)), dtype)
    run = jax.jit(lambda x: host_call(lambda x: x[::-1].copy(), "test/reversed", x, x))
    np.testing.assert_array_equal(run(x), np.asarray(x)[::-1])
    np.testing.assert_array_equal(jax.jit(lambda x: run(x.T))(x[:3]), np.asarray(x)[:3].T[::-1])
    assert "callback" not in run.lower(x).as_text()


def test_scalars_empty_arrays_and_no_arguments():
    assert jax.jit(lambda: host_call(lambda: np.float64(3.5), "test/constant", jnp.float32(0)))() == 3.5
    empty = jnp.zeros((4, 0))
    out = jax.jit(lambda x, s: host_call(lambda x, s: (s * 2, x), "test/empty", (s, x), x, s))(empty, jnp.int32(4))
    assert_same(out, (jnp.int32(8), empty))


def test_arguments_are_views_that_cannot_be_written():
    def write(x):
        assert x.base is not None
        x[...] = 0

    with pytest.raises(jax.errors.JaxRuntimeError, match="read-only"):
        jax.block_until_ready(jax.jit(lambda x: host_call(write, "test/write", x, x))(jnp.ones(3)))


def test_functions_of_one_name_are_told_apart():
    def times(factor):
        return jax.jit(lambda x: host_call(lambda x: factor * x, "test/times", x, x))

    funs = [times(np.float32(k)) for k in range(4)]
    assert [float(fun(1.0)) for fun in funs] == [0.0, 1.0, 2.0, 3.0]
    assert [float(fun(2.0)) for fun in funs] == [0.0, 2.0, 4.0, 6.0]
    mixed = Mixed()
    texts = [jax.jit(by_name(mixed)).lower(tree(), 0.5).as_text() for _ in range(2)]
    assert texts[0] == texts[1]  # the same function keeps its name


def refuse(x):
    raise KeyError("no such vase: \u2603")


@pytest.mark.parametrize(
    ("fun", "message"),
    [
        (refuse, "KeyError: 'no such vase: \u2603'"),
        (lambda x: (x, x), r"returned 2 arrays; return 1"),
        (lambda x: x[:2], r"returned float32\[2\] as array 0; return float32\[3\]"),
        (lambda x: x.astype(int), r"returned int32\[3\] as array 0; return float32\[3\]"),
    ],
)
def test_failures_of_the_function_are_errors_of_the_program(fun, message):
    for _ in range(2):
        with pytest.raises(jax.errors.JaxRuntimeError, match=message):
            jax.block_until_ready(jax.jit(lambda x: host_call(fun, "test/fails", x, x) + 1)(jnp.ones(3)))
    with pytest.raises(ValueError, match="needs a name"):
        host_call(fun, "", jnp.ones(3), jnp.ones(3))


def test_falls_back_to_pure_callback(monkeypatch):
    x, fun = jnp.arange(3.0), lambda x: np.asarray(x * 2)

    def run(x):
        return jax.vmap(lambda x: host_call(fun, "test/fallback", x, x))(x)

    assert "callback" not in jax.jit(run).lower(x).as_text()
    branches = str(jax.jit(run).trace(x).jaxpr)
    assert "pure_callback" in branches  # for other platforms
    assert "ffi_call" in branches
    half = x.astype(jnp.bfloat16)  # not an element type of NumPy
    assert "callback" in jax.jit(run).lower(half).as_text()
    np.testing.assert_array_equal(jax.jit(run)(half), 2 * half)
    monkeypatch.setattr(hostcall, "ABI_MAJOR", 1)  # as if the interface were of another version
    unknown = jax.jit(functools.partial(run))
    assert "callback" in unknown.lower(x).as_text()
    np.testing.assert_array_equal(unknown(x), 2 * x)


def test_devices_and_threads_at_once():
    """Eight devices and four threads call one function, which answers by what it was asked, and calls overlap."""
    mesh = jax.make_mesh((8,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("d")
    inside, most, lock = [0], [0], threading.Lock()

    def fun(x, n):
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        total = np.linalg.norm(np.sort(x.repeat(50, axis=1), axis=1), axis=1)  # gives the interpreter lock away
        with lock:
            inside[0] -= 1
        return total.astype(np.float32), n + 1

    def local(x, n):
        def body(carry, _):
            x, n = carry
            total, n = jax.vmap(lambda x, n: host_call(fun, "test/threads", (x[0], n), x, n))(x, n)
            return (x + 1, n), total - jax.lax.pmin(total.min(), "d")

        return jax.lax.scan(body, (x, n), None, length=20)[1]

    run = jax.jit(
        jax.shard_map(local, mesh=mesh, in_specs=(spec, spec), out_specs=jax.sharding.PartitionSpec(None, "d"))
    )

    def work(seed):
        x = np.random.default_rng(seed).normal(size=(32, 6)).astype(np.float32)
        norms = np.linalg.norm((x + np.arange(20)[:, None, None]).repeat(50, axis=2), axis=2)
        out = run(jnp.asarray(x), jnp.zeros(32, jnp.int32))
        np.testing.assert_allclose(out, norms - norms.min(axis=1, keepdims=True), rtol=1e-4, atol=1e-4)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(24)))
    assert most[0] > 1


def test_sharded_arguments_without_shard_map():
    mesh = jax.make_mesh((8,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    x = jax.device_put(jnp.arange(16.0), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("d")))
    run = jax.jit(lambda x: host_call(lambda x: np.cumsum(x, dtype=x.dtype), "test/cumsum", x, x * 2))
    np.testing.assert_array_equal(run(x), np.cumsum(2 * np.arange(16.0)))


PROGRAM = """
import json, sys
import jax, jax.numpy as jnp
from envs_mjx.hostcall import host_call
cache, factor = sys.argv[1], float(sys.argv[2])
jax.config.update("jax_compilation_cache_dir", cache)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name))
def fun(x):
    return x * x.dtype.type(factor)
out = jax.jit(jax.vmap(lambda x: host_call(fun, "test/factor", x, x)))(jnp.arange(3.0))
print(json.dumps({"out": out.tolist(), "hits": events.count("/jax/compilation_cache/cache_hits"),
                  "misses": events.count("/jax/compilation_cache/cache_misses")}))
"""


def test_another_process_finds_the_program_in_the_cache(tmp_path):
    environment = dict(os.environ, PYTHONPATH=str(ROOT), JAX_PLATFORMS="cpu")

    def process(factor):
        command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(factor)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        return json.loads(done.stdout.strip().splitlines()[-1])

    first, second = process(2), process(3)
    assert first["hits"] == 0
    assert first["misses"] > 0
    assert (second["hits"], second["misses"]) == (first["misses"], 0)
    assert first["out"] == [0.0, 2.0, 4.0]
    assert second["out"] == [0.0, 3.0, 6.0]  # the program is the first one's, the function its own


EXIT = """
import sys
import jax
import jax.numpy as jnp
import numpy as np
from envs_mjx.hostcall import host_call

def add(x):
    return np.asarray(x) + np.float32(1)

def main():
    @jax.jit
    def program(x):
        body = lambda x, _: (jnp.sin(host_call(add, "add", x, x)) @ x, None)
        return jax.lax.scan(body, x, length=200)[0]
    x = jnp.ones((300, 300))
    run = program.lower(x).compile()
    return run(x)

kept = main()
if sys.argv[1] == "dropped":
    del kept
print("the end", flush=True)
"""


@pytest.mark.parametrize("result", ["kept", "dropped"])
def test_a_process_may_end_while_programs_run(result):
    """They call Python until they are done, and the interpreter waits for them."""
    command = [sys.executable, "-c", EXIT, result]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "the end\n"), done.stderr
