"""Alignment experiments on accelerators, in JAX."""

__all__: list[str] = []
__version__ = "0.1.0"
