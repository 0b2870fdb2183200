"""How a test compiles a network that it runs once: a third of the time, slow to run."""

QUICKLY = {"xla_backend_optimization_level": 0}
