"""`lanes.where` is a conditional, however it is batched, nested or looped, and skips the lanes it promises to skip."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_mjx import lanes

CHUNK = 4


def fun(x, n):
    """Some work with a loop of data-dependent length, of several shapes and dtypes."""
    half = jax.lax.while_loop(lambda y: jnp.max(y) > 1, lambda y: y * 0.5, jnp.abs(x))
    return {"half": half, "count": n + 1, "big": n > 3}


def default_of(x, n):
    return {"half": -x, "count": -n, "big": jnp.bool_(False)}


def where(pred, x, n, chunk=CHUNK, zero_fill=False):
    return lanes.where(pred, fun, default_of(x, n), x, n, chunk=chunk, zero_fill=zero_fill)


def reference(pred, x, n):
    return jax.tree.map(lambda new, old: jnp.where(pred, new, old), fun(x, n), default_of(x, n))


def inputs(*shape, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.uniform(1.0, 50.0, (*shape, 3)).astype(np.float32)
    return jnp.asarray(x), jnp.asarray(rng.integers(0, 8, shape), jnp.int32)


def assert_same(out, expected, message=""):
    assert jax.tree.structure(out) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(out), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b, err_msg=message)


def patterns(size):
    rng = np.random.default_rng(size)
    some = {"none": np.zeros(size, bool), "all": np.ones(size, bool), "half": rng.random(size) < 0.5}
    some |= {f"only lane {i}": np.arange(size) == i for i in (0, size - 1)}
    some |= {f"the first {k}": np.arange(size) < k for k in (CHUNK - 1, CHUNK, CHUNK + 1)}
    return some


@pytest.mark.parametrize(
    ("size", "zero_fill"),
    [(1, False), (CHUNK - 1, True), (CHUNK, False), (CHUNK + 1, True), (2 * CHUNK, True), (2 * CHUNK + 1, False)],
)
def test_batch_equals_select(size, zero_fill):
    x, n = inputs(size)
    batched = jax.jit(jax.vmap(lambda *args: where(*args, zero_fill=zero_fill)))
    expected = jax.jit(jax.vmap(reference))
    for name, pred in patterns(size).items():
        assert_same(batched(jnp.asarray(pred), x, n), expected(jnp.asarray(pred), x, n), name)


def test_default_chunk_size():
    x, n = inputs(65)
    batched = jax.jit(jax.vmap(lambda p, x, n: lanes.where(p, fun, default_of(x, n), x, n)))
    expected = jax.jit(jax.vmap(reference))
    for count in (31, 32, 33, 64, 65):
        pred = jnp.asarray(np.random.default_rng(1).permutation(65) < count)
        assert_same(batched(pred, x, n), expected(pred, x, n), f"{count} lanes")


@pytest.mark.parametrize("pred", [False, True])
def test_without_a_batch(pred):
    x, n = inputs()
    pred = jnp.bool_(pred)
    assert_same(where(pred, x, n), reference(pred, x, n))
    assert_same(jax.jit(where)(pred, x, n), reference(pred, x, n))


def test_nested_batches():
    x, n = inputs(5, 3)
    pred = jnp.asarray(np.random.default_rng(2).random((5, 3)) < 0.4)
    expected = jax.jit(jax.vmap(jax.vmap(reference)))(pred, x, n)
    assert_same(jax.jit(jax.vmap(jax.vmap(where)))(pred, x, n), expected)
    x, n, pred = (y[:, None] for y in (x, n, pred))
    assert_same(jax.jit(jax.vmap(jax.vmap(jax.vmap(where))))(pred, x, n), jax.tree.map(lambda y: y[:, None], expected))


@pytest.mark.parametrize("axes", [(0, None, None), (None, 0, None), (None, None, 0), (0, 1, None), (None, 1, 0)])
def test_arguments_without_the_batch_axis(axes):
    x, n = inputs(6)
    pred = jnp.asarray([True, False, True, True, False, True])
    full = {0: (pred, 0), 1: (x, 0), 2: (n, 0)}
    args = [full[i][0] if axis is not None else full[i][0][0] for i, axis in enumerate(axes)]
    args = [jnp.moveaxis(a, 0, 1) if axis == 1 else a for a, axis in zip(args, axes, strict=True)]
    assert_same(jax.jit(jax.vmap(where, in_axes=axes))(*args), jax.jit(jax.vmap(reference, in_axes=axes))(*args))


def test_condition_shared_by_an_inner_batch():
    x, n = inputs(5, 3)
    pred = jnp.asarray([True, False, True, False, True])
    out = jax.jit(jax.vmap(jax.vmap(where, (None, 0, 0))))(pred, x, n)
    assert_same(out, jax.jit(jax.vmap(jax.vmap(reference, (None, 0, 0))))(pred, x, n))


@pytest.mark.parametrize("batch_outside", [False, True])
def test_inside_scan(batch_outside):
    x, n = inputs(7)

    def rollout(choose, x, n):
        def body(carry, t):
            x, n = carry
            out = choose((n + t) % 3 == 0, x, n)
            return (out["half"] + t, out["count"]), out

        return jax.lax.scan(body, (x, n), jnp.arange(6))

    expected = jax.jit(lambda x, n: rollout(jax.vmap(reference), x, n))(x, n)
    if batch_outside:
        last, history = jax.jit(jax.vmap(lambda x, n: rollout(where, x, n)))(x, n)
        history = jax.tree.map(lambda y: jnp.moveaxis(y, 0, 1), history)
    else:
        last, history = jax.jit(lambda x, n: rollout(jax.vmap(where), x, n))(x, n)
    assert_same((last, history), expected)


@pytest.mark.parametrize("zero_fill", [False, True])
def test_only_the_lanes_that_need_it_are_computed(zero_fill):
    seen = []

    def host(x):
        seen.append(np.array(x))
        return x * 2

    def doubled(x):
        return jax.pure_callback(host, x, x, vmap_method="broadcast_all")

    x = jnp.arange(1.0, 12.0)
    pred = jnp.arange(11) % 2 == 0
    out = jax.vmap(lambda p, x: lanes.where(p, doubled, -x, x, chunk=CHUNK, zero_fill=zero_fill))(pred, x)
    np.testing.assert_array_equal(out, np.where(pred, 2 * x, -x))
    wanted = np.asarray(x)[np.asarray(pred)]
    filling = 0.0 if zero_fill else x[-1]
    np.testing.assert_array_equal(np.concatenate(seen), [*wanted, *[filling] * (2 * CHUNK - len(wanted))])
    seen.clear()
    jax.vmap(lambda p, x: lanes.where(p, doubled, -x, x, chunk=CHUNK))(jnp.zeros(11, bool), x)
    assert seen == []


def test_lanes_that_do_not_need_it_cannot_spoil_the_others():
    x, n = inputs(6)
    pred = jnp.asarray([True, False, True, True, False, True])
    spoilt = jnp.where(pred[:, None], x, jnp.nan)
    kept = {"half": jnp.zeros(3), "count": jnp.int32(0), "big": jnp.bool_(False)}
    out = jax.jit(jax.vmap(lambda p, x, n: lanes.where(p, fun, kept, x, n, chunk=CHUNK)))(pred, spoilt, n)
    expected = jax.jit(jax.vmap(reference))(pred, x, n)["half"]
    np.testing.assert_array_equal(out["half"], jnp.where(pred[:, None], expected, 0.0))


def test_result_of_a_lane_does_not_depend_on_its_place():
    x, n = inputs(11)
    pred = jnp.asarray(np.random.default_rng(3).random(11) < 0.6)
    order = np.random.default_rng(4).permutation(11)
    batched = jax.jit(jax.vmap(where))
    shuffled = batched(pred[order], x[order], n[order])
    assert_same(shuffled, jax.tree.map(lambda y: y[order], batched(pred, x, n)))


# --- loops


def collatz(carry):
    n, steps, key = carry
    return jnp.where(n % 2 == 0, n // 2, 3 * n + 1), steps + 1, jax.random.split(key)[0]


@pytest.mark.parametrize("shape", [(1,), (40,), (6, 7)])
@pytest.mark.parametrize("chunk", [1, 8, 100])
def test_every_lane_loops_as_often_as_it_needs(shape, chunk):
    start = jnp.arange(1, 1 + int(np.prod(shape)), dtype=jnp.int32).reshape(shape)
    keys = jax.random.split(jax.random.key(0), shape)
    run = lambda n, key: lanes.while_loop(lambda c: c[0] != 1, collatz, (n, jnp.int32(0), key), chunk)
    for _ in shape:
        run = jax.vmap(run)
    n, steps, key = jax.jit(run)(start, keys)

    def count(n):
        return 0 if n == 1 else 1 + count(n // 2 if n % 2 == 0 else 3 * n + 1)

    assert (np.asarray(n) == 1).all()
    np.testing.assert_array_equal(steps, np.vectorize(count)(np.asarray(start)))
    alone = keys.reshape(-1)[-1]
    for _ in range(int(steps.reshape(-1)[-1])):
        alone = jax.random.split(alone)[0]
    np.testing.assert_array_equal(jax.random.key_data(key.reshape(-1)[-1]), jax.random.key_data(alone))


def test_a_loop_runs_its_body_only_for_lanes_that_are_not_done():
    """One lane of 64 needs 50 turns, the others one: 64 / 8 turns and 49 more, of 8 lanes each."""
    calls = []

    def body(carry):
        left, used = carry
        return left - 1, jax.pure_callback(
            lambda x: (calls.append(np.size(x)), x + 1)[1], used, used, vmap_method="expand_dims"
        )

    left = jnp.ones(64, jnp.int32).at[5].set(50)
    _, used = jax.jit(jax.vmap(lambda n: lanes.while_loop(lambda c: c[0] > 0, body, (n, jnp.int32(0)))))(left)
    np.testing.assert_array_equal(used, left)
    assert sum(calls) <= 8 * (64 // 8 + 50)


def test_empty_arrays_pass_through_nested_maps():
    """A sweep maps over environments that are maps themselves; some leaves of their states have no elements."""

    def one(pred, x):
        return lanes.where(pred, lambda y: (y[0] + 1, y[1]), x, x, chunk=2)

    def loop(x):
        return lanes.while_loop(lambda y: y[0] < 3, lambda y: (y[0] + 1, y[1]), x)

    pred = jnp.arange(6).reshape(2, 3) % 2 == 0
    x = jnp.arange(6.0).reshape(2, 3), jnp.zeros((2, 3, 0))
    out, empty = jax.jit(jax.vmap(jax.vmap(one)))(pred, x)
    np.testing.assert_array_equal(out, x[0] + pred)
    assert empty.shape == (2, 3, 0)
    out, empty = jax.jit(jax.vmap(jax.vmap(loop)))(x)
    np.testing.assert_array_equal(out, np.maximum(x[0], 3.0))
    assert empty.shape == (2, 3, 0)
