"""Contacts that MJX finds, with our colliders and stand-ins, against those of MuJoCo's C engine."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from envs_mjx import objects, scene
from envs_mjx.agents import CAR, POINT
from envs_mjx.physics.mjx_engine import as_c, mjx

POSES = 120
PILLAR = objects.pillars(1, 2.0)


def collider(model):
    """Compiled ``(qpos, mocap_pos) [N] -> (dist, pos, frame, geoms)`` of all places for contacts [N, C]."""
    with as_c():
        device_model, blank = mjx.put_model(model, impl="jax"), mjx.make_data(model, impl="jax")

    def collide(qpos, mocap_pos):
        with as_c():
            data = mjx.kinematics(device_model, blank.replace(qpos=qpos, mocap_pos=mocap_pos))
            contact = mjx.collision(device_model, mjx.com_pos(device_model, data))._impl.contact
        return contact.dist, contact.pos, contact.frame, contact.geom

    compiled = jax.jit(jax.vmap(collide))
    return lambda qpos, mocap: jax.tree.map(np.asarray, compiled(jnp.float32(qpos), jnp.float32(mocap)))


# --- colliders


def thrown(kind, size):
    """A shape that falls on a floor, in C, which lists contacts up to 1 m away; and for MJX."""

    def build(margin):
        spec = mujoco.MjSpec()
        spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[1, 1, 0.1])
        body = spec.worldbody.add_body()
        body.add_freejoint()
        body.add_geom(type=kind, size=size, margin=margin)
        return spec.compile()

    return build(1.0), build(0.0)


def attitudes(seed):
    """Random ones, and such as lie or stand exactly or nearly so."""
    quat = Rotation.random(POSES, rng=np.random.default_rng(seed)).as_quat(scalar_first=True)
    quat[:5] = [[1, 0, 0, 0], [0, 1, 0, 0], [0.5**0.5, 0, 0.5**0.5, 0], [0.5**0.5, 0.5**0.5, 0, 0], [0.5] * 4]
    return quat


@pytest.mark.parametrize(
    ("kind", "size", "number"),
    [(mujoco.mjtGeom.mjGEOM_CAPSULE, [0.05, 0.12, 0], 2), (mujoco.mjtGeom.mjGEOM_CYLINDER, [0.1, 0.06, 0], 4)],
)
def test_shape_on_a_plane(kind, size, number):
    """Distance, point and frame, with the tangents along which friction acts, of every contact that C finds."""
    in_c, for_mjx = thrown(kind, size)
    qpos = np.column_stack([np.random.default_rng(1).uniform(-0.1, 0.2, (POSES, 3)), attitudes(0)])
    dist, pos, frame, _ = collider(for_mjx)(qpos, np.zeros((POSES, 0, 3)))
    assert dist.shape == (POSES, number)
    data, seen = mujoco.MjData(in_c), []
    for i in range(POSES):
        data.qpos = qpos[i]
        mujoco.mj_forward(in_c, data)
        seen.append(data.ncon)
        for contact in data.contact:
            # points may coincide (both rims of a standing cylinder have none that is lowest)
            nearest = np.argmin(np.linalg.norm(pos[i] - contact.pos, axis=1))
            np.testing.assert_allclose(dist[i, nearest], contact.dist, atol=1e-6)
            np.testing.assert_allclose(pos[i, nearest], contact.pos, atol=1e-6)
            if i >= 2 or kind == mujoco.mjtGeom.mjGEOM_CYLINDER:
                np.testing.assert_allclose(frame[i, nearest].ravel(), contact.frame, atol=2e-5)
            else:  # exactly upright no tangent is preferred: a friction pyramid is the same after a quarter turn
                np.testing.assert_allclose(frame[i, nearest, 0], contact.frame[:3], atol=1e-6)
                np.testing.assert_allclose(abs(frame[i, nearest, 1] @ contact.frame[3:6]) % 1, 0, atol=1e-6)
    assert max(seen) == number
    assert np.mean(np.array(seen) == number) > 0.5
    steep = np.abs(Rotation.from_quat(qpos[:, 3:], scalar_first=True).as_matrix()[:, 2, 2]) > 0.9
    assert steep.sum() > 8  # where MJX's own capsule has other tangents


def test_mjx_itself_has_other_tangents_and_stays_as_it_was():
    """So that the colliders are needed, and so that other users of MJX in this process see nothing of them."""
    _, for_mjx = thrown(mujoco.mjtGeom.mjGEOM_CAPSULE, [0.05, 0.12, 0])
    model, blank = mjx.put_model(for_mjx, impl="jax"), mjx.make_data(for_mjx, impl="jax")
    data = mjx.kinematics(model, blank.replace(qpos=jnp.array([0.0, 0.0, 0.1, 0.99, 0.1, 0.1, 0.0])))
    tangents = [mjx.collision(model, data)._impl.contact.frame[:, 1]]
    with as_c():
        tangents.append(mjx.collision(model, data)._impl.contact.frame[:, 1])
    tangents.append(mjx.collision(model, data)._impl.contact.frame[:, 1])
    assert np.abs(tangents[0] - tangents[1]).max() > 0.1
    np.testing.assert_array_equal(tangents[0], tangents[2])


# --- stand-ins


@pytest.fixture(scope="module", params=[POINT, CAR], ids=["Point", "Car"])
def beside_a_pillar(request):
    """Robots that a pillar penetrates by up to 3 mm: depth, direction, part of the deepest contact, in C and MJX."""
    groups, rng = ((PILLAR, 1),), np.random.default_rng(0)
    in_c, for_mjx = (scene.build(request.param, groups, for_mjx=mjx) for mjx in (False, True))
    data, place = mujoco.MjData(in_c), np.zeros((POSES, 1, 3))
    qpos, heading = np.tile(in_c.qpos0, (POSES, 1)), rng.uniform(0, 2 * np.pi, POSES)
    if request.param is POINT:
        qpos[:, 2] = heading
    else:
        qpos[:, [3, 6]] = np.column_stack([np.cos(heading / 2), np.sin(heading / 2)])
    deepest, part = [], []
    for i, bearing in enumerate(rng.uniform(0, 2 * np.pi, POSES)):

        def contacts(distance, i=i, bearing=bearing):
            place[i, 0] = [distance * np.cos(bearing), distance * np.sin(bearing), PILLAR.height]
            data.qpos, data.mocap_pos = qpos[i], place[i]
            mujoco.mj_forward(in_c, data)
            pillar = in_c.geom("pillars_0_0").id
            return [(c.dist, c.frame[:2].copy(), c.geom.copy()) for c in data.contact if pillar in c.geom]

        low, high = 0.1, 1.0
        for _ in range(25):
            middle = (low + high) / 2
            low, high = (middle, high) if contacts(middle) else (low, middle)
        dist, normal, geoms = min(contacts(low - rng.uniform(1e-4, 3e-3)), key=lambda contact: contact[0])
        deepest.append((dist, *normal))
        part.append({in_c.geom(int(g)).name for g in geoms} - {"pillars_0_0"})
    dist, _, frame, geoms = collider(for_mjx)(qpos, place)
    mine = dist.argmin(axis=1)
    rows = np.arange(POSES)
    ours = np.column_stack([dist[rows, mine], frame[rows, mine, 0, :2]])
    names = [{for_mjx.geom(int(g)).name for g in pair} - {"pillars_0_0"} for pair in geoms[rows, mine]]
    return np.array(deepest), ours, part, names


def test_pillar_meets_robots_as_in_c(beside_a_pillar):
    """Balls, upright edges and faces of boxes, and wheels: depth, direction and part of the deepest contact.

    The C engine finds these by MPR, whose depth is that along the direction in which it left the portal: never less
    than the true one, which is what MJX must give.
    """
    theirs, ours, part, names = beside_a_pillar
    assert len({next(iter(p)) for p in part}) > 1
    excess = ours[:, 0] - theirs[:, 0]
    assert excess.min() > -2e-6
    assert np.median(excess) < 1e-6
    assert excess.max() < 3e-4
    assert names == part
    parallel = np.abs(np.sum(ours[:, 1:] * theirs[:, 1:], axis=1))  # either geom may come first
    assert np.median(parallel) > 1 - 1e-6
    assert parallel.min() > 0.999


def test_pillar_meets_a_box_as_geometry_says():
    """An upright box and an upright cylinder are a rectangle and a disc, whose distance has a closed form."""
    rng, vase = np.random.default_rng(1), objects.vases(1, 2.0)
    model = scene.build(POINT, ((vase, 1), (PILLAR, 1)), for_mjx=True)
    angle, offset = rng.uniform(0, 2 * np.pi, (2, POSES))
    distance = rng.uniform(0.26, 0.36, POSES)
    place = np.zeros((POSES, 1, 3))
    place[:, 0] = np.column_stack([distance * np.cos(offset), distance * np.sin(offset), np.full(POSES, PILLAR.height)])
    qpos = np.tile(model.qpos0, (POSES, 1))
    qpos[:, :2], qpos[:, 3:] = 3.0, np.array([0, 0, 0.1, 1, 0, 0, 0])
    qpos[:, [6, 9]] = np.column_stack([np.cos(angle / 2), np.sin(angle / 2)])
    dist, _, _, geoms = collider(model)(qpos, place)
    pair = (geoms == np.sort([model.geom("vases_0_0").id, model.geom("pillars_0_0").id])).all(-1)
    pair |= (geoms == np.sort([model.geom("vases_0_0").id, model.geom("pillars_0_0").id])[::-1]).all(-1)
    assert (pair.sum(axis=1) == 1).all()
    turned = np.stack([np.cos(offset - angle), np.sin(offset - angle)], axis=1) * distance[:, None]
    nearest = np.clip(turned, -0.1, 0.1)
    expected = np.linalg.norm(turned - nearest, axis=1) - 0.2
    assert (expected < 0).sum() > POSES / 3
    assert ((np.abs(nearest) == 0.1).all(axis=1) & (expected < 0)).sum() > 10  # upright edges
    np.testing.assert_allclose(dist[pair], expected, atol=1e-6)
