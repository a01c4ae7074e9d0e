"""Rotations agree with scipy, overlaps with the distances of MuJoCo's C collision code."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from envs_mjx.geometry import box_box_overlap, box_distance, quat_to_mat, quat_z, rotation_z, sphere_box_overlap

MARGIN = 1e-5  # m, pairs closer than this to touching are left out: float32 cannot tell


def random_rotations(count, seed):
    return Rotation.random(count, rng=np.random.default_rng(seed))


def yaws(angles):
    return Rotation.from_euler("z", np.reshape(angles, (-1, 1)))


def test_rotation_about_z():
    angles = np.linspace(-10, 10, 101)
    expected = yaws(angles)
    np.testing.assert_allclose(jax.vmap(rotation_z)(jnp.asarray(angles)), expected.as_matrix(), atol=1e-6)
    quat = np.asarray(jax.vmap(quat_z)(jnp.asarray(angles)))
    same = np.abs(np.sum(quat * expected.as_quat(scalar_first=True), axis=1))
    np.testing.assert_allclose(same, 1.0, atol=1e-6)
    assert quat[0][0] == pytest.approx(np.cos(-5.0), abs=1e-6)
    np.testing.assert_allclose(jax.vmap(quat_to_mat)(jnp.asarray(quat)), expected.as_matrix(), atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 0.3, 50.0])
def test_quaternion_to_matrix_normalises(scale):
    rotations = random_rotations(500, 0)
    quat = jnp.asarray(scale * rotations.as_quat(scalar_first=True))
    for sign in (1, -1):
        np.testing.assert_allclose(jax.vmap(quat_to_mat)(sign * quat), rotations.as_matrix(), atol=1e-6)


def geom_distances(kinds, sizes_a, pos_a, mat_a, sizes_b, pos_b, mat_b):
    """Signed distance of each pair of shapes by MuJoCo (C), float64."""
    xml = "<mujoco><worldbody>{}</worldbody></mujoco>"
    geoms = "".join(f'<body mocap="true"><geom type="{kind}" size="1 1 1"/></body>' for kind in kinds)
    model = mujoco.MjModel.from_xml_string(xml.format(geoms))
    model.opt.ccd_tolerance, model.opt.ccd_iterations = 1e-9, 200
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    out = np.empty(len(pos_a))
    for i in range(len(out)):
        for geom, (size, pos, mat) in enumerate(
            ((sizes_a[i], pos_a[i], mat_a[i]), (sizes_b[i], pos_b[i], mat_b[i])),
        ):
            model.geom_size[geom] = size
            model.geom_rbound[geom] = np.linalg.norm(size)
            data.geom_xpos[geom], data.geom_xmat[geom] = pos, mat.reshape(-1)
        out[i] = mujoco.mj_geomDistance(model, data, 0, 1, 100.0, None)
    return out


def assert_same_verdict(verdict, distance, least=200):
    clear = np.abs(distance) > MARGIN
    verdict = np.asarray(verdict)
    wrong = np.flatnonzero(clear & (verdict != (distance < 0)))
    assert wrong.size == 0, f"{wrong.size} wrong, of distance {distance[wrong][:5]} m"
    assert min((distance[clear] < 0).sum(), (distance[clear] > 0).sum()) >= least  # both verdicts occurred
    assert clear.mean() > 0.9


def float32(*arrays):
    return [np.asarray(x, np.float32) for x in arrays]


def touching_pairs(count, seed, rot_a, rot_b):
    """Boxes in random directions at about the distance at which they touch."""
    rng = np.random.default_rng(seed)
    half_a, half_b = rng.uniform(0.03, 0.3, (2, count, 3))
    direction = rng.normal(size=(count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    mat_a, mat_b = rot_a.as_matrix(), rot_b.as_matrix()
    reach = sum(
        np.sum(half * np.abs(np.einsum("ni,nij->nj", direction, mat)), axis=1)
        for half, mat in ((half_a, mat_a), (half_b, mat_b))
    )
    shift = direction * (reach * rng.uniform(0.6, 1.05, count))[:, None]
    pos_a = rng.uniform(-2, 2, (count, 3))
    return float32(pos_a, mat_a, half_a, pos_a + shift, mat_b, half_b)


COUNT = 1000
TURNS = {
    "random": (random_rotations(COUNT, 1), random_rotations(COUNT, 2)),
    "parallel": (random_rotations(COUNT, 3), random_rotations(COUNT, 3)),
    "quarter turns": (yaws(np.zeros(COUNT)), yaws(np.pi / 2 * (np.arange(COUNT) % 4))),
    "standing": (yaws(np.linspace(0, 6, COUNT)), yaws(np.linspace(0, 60, COUNT))),
    "almost parallel": (yaws(np.zeros(COUNT)), Rotation.from_rotvec(1e-4 * random_rotations(COUNT, 4).as_rotvec())),
}

overlap = jax.jit(jax.vmap(box_box_overlap))
compiled_distance = jax.jit(jax.vmap(box_distance))


@pytest.mark.parametrize("turn", TURNS)
def test_boxes_touch_when_mujoco_says_so(turn):
    pos_a, mat_a, half_a, pos_b, mat_b, half_b = touching_pairs(COUNT, 5, *TURNS[turn])
    distance = geom_distances(("box", "box"), half_a, pos_a, mat_a, half_b, pos_b, mat_b)
    assert_same_verdict(overlap(pos_a, mat_a, half_a, pos_b, mat_b, half_b), distance)
    np.testing.assert_array_equal(  # symmetric
        overlap(pos_b, mat_b, half_b, pos_a, mat_a, half_a), overlap(pos_a, mat_a, half_a, pos_b, mat_b, half_b)
    )


def test_boxes_that_only_their_edges_separate():
    """Two cubes on edge, crossed: every face normal sees an overlap long before they touch."""
    rng, count = np.random.default_rng(6), 600
    roll = Rotation.from_euler("x", np.pi / 4 + rng.uniform(-0.1, 0.1, (count, 1)))  # an edge up, along x
    pitch = Rotation.from_euler("y", np.pi / 4 + rng.uniform(-0.1, 0.1, (count, 1)))  # an edge down, along y
    gap = np.concatenate([rng.uniform(-0.03, -2e-4, count // 2), rng.uniform(2e-4, 0.03, count // 2)])
    half = np.full((count, 3), 0.1)
    height = sum(0.1 * np.abs(rot.as_matrix()[:, 2]).sum(axis=1) for rot in (roll, pitch))
    pos_b = np.column_stack([*rng.uniform(-0.03, 0.03, (2, count)), height + gap])
    pos_a, mat_a, half, pos_b, mat_b = float32(np.zeros((count, 3)), roll.as_matrix(), half, pos_b, pitch.as_matrix())
    distance = geom_distances(("box", "box"), half, pos_a, mat_a, half, pos_b, mat_b)
    np.testing.assert_allclose(distance[gap > 0], gap[gap > 0], atol=2e-3)
    assert_same_verdict(overlap(pos_a, mat_a, half, pos_b, mat_b, half), distance)
    by_faces = np.ones(count, bool)  # what a test of the faces alone would say
    for mat, other in ((mat_a, mat_b), (mat_b, mat_a)):
        reach = 0.1 + 0.1 * np.abs(np.einsum("nij,nik->njk", mat, other)).sum(axis=2)
        by_faces &= (np.abs(np.einsum("ni,nij->nj", pos_b - pos_a, mat)) <= reach).all(axis=1)
    assert (by_faces & (distance > MARGIN)).sum() > 100


def test_boxes_inside_each_other():
    pos = np.random.default_rng(9).uniform(-1, 1, (COUNT, 3))
    mat_a, mat_b = random_rotations(COUNT, 7).as_matrix(), random_rotations(COUNT, 8).as_matrix()
    outer = float32(pos, mat_a, np.full((COUNT, 3), 0.5))
    inner = float32(pos + 0.05, mat_b, np.full((COUNT, 3), 0.05))
    assert overlap(*outer, *inner).all()
    assert overlap(*inner, *outer).all()


@pytest.mark.parametrize("radius", [0.1, 0.03, 0.25])
def test_sphere_touches_box_when_mujoco_says_so(radius):
    rng = np.random.default_rng(10)
    pos, mat, half, *_ = touching_pairs(COUNT, 11, random_rotations(COUNT, 12), random_rotations(COUNT, 13))
    local = rng.uniform(-1, 1, (COUNT, 3)) * (half + 1.2 * radius)
    (centre,) = float32(pos + np.einsum("nij,nj->ni", mat, local))
    sphere, identity = np.full((COUNT, 3), radius), np.broadcast_to(np.eye(3), mat.shape)
    distance = geom_distances(("sphere", "box"), sphere, centre, identity, half, pos, mat)
    verdict = jax.jit(jax.vmap(lambda c, *box: sphere_box_overlap(c, radius, *box)))(centre, pos, mat, half)
    assert_same_verdict(verdict, distance, least=100)
    outside = distance + radius > 1e-3
    gap = np.asarray(compiled_distance(centre, pos, mat, half))
    np.testing.assert_allclose(gap[outside], (distance + radius)[outside], atol=2e-6)
    assert (gap[~outside] <= 1.1e-3).all()


def test_distance_to_a_box_is_zero_inside():
    mat, half = random_rotations(300, 14).as_matrix(), np.full((300, 3), 0.2)
    local = np.random.default_rng(15).uniform(-0.199, 0.199, (300, 3))
    pos, mat, half, point = float32(np.ones((300, 3)), mat, half, 1 + np.einsum("nij,nj->ni", mat, local))
    np.testing.assert_array_equal(compiled_distance(point, pos, mat, half), 0.0)
