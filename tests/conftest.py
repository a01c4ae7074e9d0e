"""Eight virtual devices for the tests of sharding (everything else runs on the first), quick compilation, marks."""

import os

# Before jaxlib is loaded: programs from the compilation cache are announced on stderr, at level "error"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import shutil
import tempfile

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache
from xdist.scheduler import LoadScopeScheduling

jax.config.update("jax_num_cpu_devices", 8)

CACHE = "JAXALIGN_TESTS_CACHE"  # names the folder of both caches

# What CI also runs with the newest Python and JAX: every package once, few compilations
SMOKE = (
    "test_miscompilation.py",
    "test_lanes.py",
    "test_sensors.py",
    "test_prng.py",
    "test_mlp.py",
    "test_estimators_golden.py",
    "test_constraints_golden.py",
    "test_devices.py::test_real_environment_on_several_devices",
    "test_runs.py::test_a_run_leaves_its_records",
    "test_runs.py::test_list_names_everything",
)


# What takes longest to compile; fixtures by name as well
SLOW = (
    "test_velocity.py::test_recorded_transitions_in_mjx",
    "test_parity.py::test_table_has_a_row",
    "test_brax_adapter.py::test_brax_ppo_learns",
    "test_tasks.py::test_the_later_ant",
    "test_collision.py::test_agrees_with_mujoco[mesh",
    "test_collision.py::test_agrees_with_mujoco[cylinder",
    "test_collision.py::test_groups_of_shapes",
    "test_mjx_as_c.py::test_mjx_itself",
    "test_navigation.py::test_compiled_equals_not_compiled",
    "test_own_worlds.py::test_its_reward_is_progress",
    "test_tasks.py::test_random_policy_has_the_recorded_returns_and_costs",
    "test_tasks.py::test_buttons_are_out_of_service",
    "test_transforms.py::test_a_learner_trains_on_them",
    "test_runs.py::test_ctrl_c_saves",
    "test_layout.py::test_start_layouts_have_the_recorded_distribution",
    "test_layout.py::test_the_comparison_notices_a_wrong_layout",
    "test_tasks.py::test_pressing_pays_one",
    "test_transforms.py::test_at_strength_zero_nothing_changes_bit_for_bit",
    "test_parity.py::test_each_wrong_cost_is_found",
    "test_tasks.py::test_a_pressed_goal_moves_to_any_button",
    "test_learner_contract.py::test_sweep_equals_single_runs",
    "test_learning_probes.py::test_constrained_optimum[pcpo]",
    "test_learning_probes.py::test_multiplier_circles_the_saddle_point[trpo_lag]",
    "test_learning_probes.py::test_without_a_constraint",
    "test_learning_probes.py::test_action_that_depends_on_the_observation[trpo]",
    "test_learned.py::test_a_network_learns_a_bias",
    "test_scale.py::test_activations_are_what_a_gradient_keeps",
    "test_gnss_city_scale.py::test_districts_are_the_pieces_of_one_build",
    "test_gnss_city_scale.py::test_what_is_finished_is_not_repeated",
    "test_layout.py::test_no_start_layout_breaks_a_keepout",
    "test_brax_adapter.py::test_is_the_functional_environment",
    "test_tasks.py::test_undisturbed_gremlins",
    "test_worlds.py::test_recordings_agree[SafetyPointButton1-v0]",
    "test_learning_probes.py::test_constrained_optimum[cpo]",
    "test_gnss_ranging.py::test_pseudoranges_find_the_street",
    "test_lifecycle.py::",
)
SLOW_FIXTURES = {"mjx_replay", "both"}


# Files whose programs run for longer than they are optimised for: all others are compiled without optimisation
OPTIMISED = {
    "test_brax_adapter.py",  # compares two programs over several steps of a chattering servo
    "test_constrained_optimum.py",
    "test_gymnasium_adapter.py",  # likewise
    "test_layout.py",
    "test_learning_probes.py",
    "test_own_worlds.py",
    "test_ppo.py",
    "test_rays.py",
    "test_transforms.py",  # likewise
}


# Files whose tests share no fixture worth keeping on one worker
APART = {"test_constrained_optimum.py", "test_notebooks.py"}


def pytest_configure(config):
    """Programs are kept for the length of this session only, unless the caller's environment names a cache."""
    if CACHE in os.environ:  # workers inherit it
        return
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if folder is None:
        folder = tempfile.mkdtemp(prefix="jaxalign-tests-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    os.environ[CACHE] = folder


class ByFile(LoadScopeScheduling):
    """A file's tests go to one worker, which then sets up its fixtures once; those of `APART` to any."""

    def _split_scope(self, nodeid):
        file = nodeid.split("::", 1)[0]
        return nodeid if file.rsplit("/", 1)[-1] in APART else file


def pytest_xdist_make_scheduler(config, log):
    return ByFile(config, log)


def pytest_collection_modifyitems(items):
    for item in items:
        if any(name in item.nodeid for name in SLOW) or SLOW_FIXTURES & {*item.fixturenames}:
            item.add_marker(pytest.mark.slow)
        if any(name in item.nodeid for name in SMOKE):
            item.add_marker(pytest.mark.smoke)


@pytest.fixture(autouse=True, scope="module")
def optimisation(request):
    """Compiling is most of what the tests do, and most programs run a few times only.

    JAX finds an optimised program and another one under the same key, so that each kind has a cache of its own.
    """
    without = request.path.name not in OPTIMISED
    folder = os.path.join(os.environ[CACHE], "quick" if without else "optimised")
    jax.config.update("jax_disable_most_optimizations", without)
    if jax.config.jax_compilation_cache_dir != folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        compilation_cache.reset_cache()  # it opens the folder once
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(int(without))  # for processes that tests start
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder


@pytest.fixture(scope="session")
def one_device():
    from jaxalign.dist import make_mesh

    return make_mesh(1)
