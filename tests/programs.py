"""What a traced program holds."""

import jax


def products(jaxpr):
    """All products of matrices in a program and the programs inside it."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield equation
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
        ):
            if program := getattr(inner, "jaxpr", inner if hasattr(inner, "eqns") else None):
                yield from products(program)
