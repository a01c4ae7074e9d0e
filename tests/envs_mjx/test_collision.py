"""Whether shapes touch, and how far they are apart, against MuJoCo's C engine in float64."""

import itertools

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from envs_mjx.collision import Convex, any_overlap, distance, overlap, tolerance

PAIRS = 400
POINTS = np.random.default_rng(7).normal(size=(20, 3)) * [0.2, 0.1, 0.05]
SHAPES = {
    "sphere": Convex("sphere", (0.1,)),
    "capsule": Convex("capsule", (0.05, 0.12)),
    "box": Convex("box", (0.1, 0.15, 0.05)),
    "cylinder": Convex("cylinder", (0.1, 0.06)),
    "mesh": Convex("mesh", (), POINTS),
}
KINDS = tuple(SHAPES)


def model_of(a, b):
    """Two free bodies that hold one shape each, collided by the algorithm that `mj_geomDistance` uses."""
    spec = mujoco.MjSpec()
    for name, shape in (("a", a), ("b", b)):
        body = spec.worldbody.add_body(name=name)
        body.add_freejoint()
        kind = getattr(mujoco.mjtGeom, f"mjGEOM_{shape.kind.upper()}")
        if shape.kind == "mesh":
            mesh = spec.add_mesh(name=name, uservert=np.ravel(shape.vertices))
            body.add_geom(name=name, type=kind, meshname=mesh.name)
        else:
            body.add_geom(name=name, type=kind, size=(*shape.size, 0, 0, 0)[:3])
    return spec.compile()


def poses(seed):
    """Origins [N, 3] and rotations of pairs, from deep inside each other to 0.2 m apart."""
    rng = np.random.default_rng(seed)
    turns = Rotation.random(PAIRS, random_state=seed), Rotation.random(PAIRS, random_state=seed + 1)
    apart = rng.normal(size=(PAIRS, 3))
    apart *= rng.uniform(0.0, 0.45, (PAIRS, 1)) / np.linalg.norm(apart, axis=1, keepdims=True)
    middle = rng.uniform(-2, 2, (PAIRS, 3))
    return (middle, middle + apart), turns


def expected(a, b, pos, turns):
    """Distances by MuJoCo; negative where shapes overlap.

    Its own function for a capsule and a box misses a capsule whose axis is inside (checked by sampling the axis), so it
    gets the box as a mesh.
    """
    if (a.kind, b.kind) == ("capsule", "box"):
        b = Convex("mesh", (), np.array(list(itertools.product(*([-half, half] for half in b.size)))))
    model = model_of(a, b)
    data, out = mujoco.MjData(model), []
    for i in range(PAIRS):
        for body in (0, 1):
            data.qpos[7 * body : 7 * body + 3] = pos[body][i]
            data.qpos[7 * body + 3 : 7 * body + 7] = np.roll(turns[body][i].as_quat(), 1)
        mujoco.mj_kinematics(model, data)
        out.append(mujoco.mj_geomDistance(model, data, 0, 1, 1.0, np.zeros(6)))
    return np.array(out)


CASES = [(a, b) for i, a in enumerate(KINDS) for b in KINDS[i:]]


@pytest.mark.parametrize(("a", "b"), CASES)
def test_agrees_with_mujoco(a, b):
    a, b = SHAPES[a], SHAPES[b]
    pos, turns = poses(len(a.kind) + 3 * len(b.kind))
    truth = expected(a, b, pos, turns)
    mats = [turn.as_matrix() for turn in turns]
    args = [jnp.asarray(x, jnp.float32) for x in (pos[0] * 0, mats[0], pos[1] - pos[0], mats[1])]
    both = jax.jit(jax.vmap(lambda *x: (overlap(a, *x[:2], b, *x[2:]), distance(a, *x[:2], b, *x[2:]))))
    touch, gap = map(np.asarray, both(*args))
    slack = 2 * tolerance(a, b) + 1e-6  # MuJoCo's own tolerance is 1e-6
    clear = np.abs(truth) > slack
    assert 0.1 < np.mean(truth < 0) < 0.95
    np.testing.assert_array_equal(touch[clear], (truth < 0)[clear])
    np.testing.assert_allclose(gap, np.maximum(truth, 0.0), atol=slack + 2e-5)
    assert np.median(np.abs(gap - np.maximum(truth, 0))) < 1e-6


def test_groups_of_shapes_touch_where_any_pair_does():
    """Three shapes of a robot against a castle of two boxes and a ball, against all pairs one by one."""
    robot = (SHAPES["capsule"], Convex("capsule", (0.02, 0.2)), SHAPES["cylinder"], SHAPES["mesh"], SHAPES["box"])
    other = (SHAPES["box"], Convex("box", (0.02, 0.02, 0.3)), SHAPES["sphere"])
    rng, number = np.random.default_rng(0), 64
    pos = [rng.uniform(-0.35, 0.35, (number, len(group), 3)) for group in (robot, other)]
    mat = [
        Rotation.random(number * len(group), random_state=k).as_matrix().reshape(number, len(group), 3, 3)
        for k, group in enumerate((robot, other))
    ]
    args = [jnp.asarray(x, jnp.float32) for x in (pos[0], mat[0], pos[1], mat[1])]
    together = jax.jit(jax.vmap(lambda p, m, q, n: any_overlap(robot, p, m, other, q, n)))(*args)

    def one_by_one(p, m, q, n):
        return jnp.stack(
            [overlap(a, p[i], m[i], b, q[j], n[j]) for i, a in enumerate(robot) for j, b in enumerate(other)]
        )

    alone = np.asarray(jax.jit(jax.vmap(one_by_one))(*args)).any(axis=1)
    assert 0.2 < alone.mean() < 0.99
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (Convex("sphere", (0.1, 0.2)), r"Convex.size of a sphere is \(0.1, 0.2\); give 1 positive numbers"),
        (Convex("box", (0.1, -0.2, 0.3)), "give 3 positive numbers"),
        (Convex("mesh"), r"Convex.vertices of a mesh has shape None; give an array of shape \[n, 3\]"),
        (Convex("sphere", (0.1,), POINTS), "only a mesh has vertices"),
    ],
)
def test_wrong_shapes_are_refused(shape, message):
    good, origin, axes = SHAPES["box"], jnp.zeros(3), jnp.eye(3)
    for call in (overlap, distance):
        with pytest.raises(ValueError, match=message):
            call(shape, origin, axes, good, origin, axes)
        with pytest.raises(ValueError, match=message):
            call(good, origin, axes, shape, origin, axes)
    with pytest.raises(ValueError, match=message):
        any_overlap((good,), origin[None], axes[None], (shape,), origin[None], axes[None])
