"""Speed and memory, measured side by side: ``python -m benchmarks.run`` (or ``make bench``)."""

OPERATORS = ("sampling", "neighbours", "propagation", "descriptors", "registration", "banks", "scores", "reading",
             "reconstruction")  # fmt: skip
"""Groups of operators; each is a module of this package with a function ``run``."""
