"""Streams of numbers that are hard on a quantile sketch."""

import numpy as np


def streams(size: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Named streams of `size` float32 values each, in stream order."""
    rng = np.random.default_rng(seed)

    def signs():
        return rng.choice([-1.0, 1.0], size)

    normal = rng.normal(size=size)
    late = np.abs(normal)
    late[-size // 50 :] += 100
    mixed_signs = np.where(rng.random(size) < 0.5, 1e-30, 1e30) * rng.random(size)
    found = {
        "relu": np.maximum(rng.normal(-0.5, 1, size), 0),
        "zeros": np.zeros(size),
        "minus zeros": np.where(rng.random(size) < 0.5, -0.0, 0.0),
        "constant": np.full(size, 3.25),
        "99.5 % zeros": np.where(rng.random(size) < 0.995, 0, rng.random(size)),
        "two atoms": np.where(rng.random(size) < 0.985, 1.5, 2.5),
        "1e-30 and 1e30": mixed_signs * signs(),
        "all negative": -np.exp(rng.normal(size=size)),
        "100 +- 0.01": 100 + rng.uniform(-0.01, 0.01, size),
        "adjacent floats": 1 + rng.uniform(0, 1e-4, size),
        "1e4 + N(0, 1)": 1e4 + rng.normal(size=size),
        "log-uniform": 10 ** rng.uniform(-30, 30, size),
        "log-uniform, both signs": 10 ** rng.uniform(-30, 30, size) * signs(),
        "Cauchy": rng.standard_cauchy(size),
        "8-bit": rng.integers(0, 256, size) / 255 * 6,
        "ascending": np.sort(normal),
        "descending": -np.sort(normal),
        "largest last": late,
        "subnormal": rng.uniform(-1e-38, 1e-38, size),
        "ReLU6": np.clip(rng.normal(0, 3, size), 0, 6),
    }
    return {name: values.astype(np.float32) for name, values in found.items()}
