"""Levenberg-Marquardt for a few dozen to a few hundred parameters, with the derivatives given. Deterministic; numpy alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def minimise(
    problem: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], start: np.ndarray, *, steps: int = 200
) -> tuple[float, np.ndarray]:
    """The sum of squares at a bottom near `start`, and where it is. `problem` gives residuals and their Jacobian."""
    import numpy as np

    x, damping = start, 1e-3
    residual, jacobian = problem(x)
    for _ in range(steps):
        normal = jacobian.T @ jacobian
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -jacobian.T @ residual)
        tried, tried_jacobian = problem(x + step)
        gain = float(residual @ residual - tried @ tried)
        if gain > 0:
            x, residual, jacobian, damping = x + step, tried, tried_jacobian, damping / 5
            if gain < 1e-7:  # of some hundred: far below what six printed figures show
                break
        else:
            damping *= 5
            if damping > 1e9:
                break
    return float(residual @ residual), x


def soft_l1(r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Residuals whose squares grow like |r| where |r| is above 1, and their derivative by r."""
    import numpy as np

    soft = np.sqrt(np.sqrt(1.0 + r * r) + 1.0)  # sign(r)·sqrt(2(sqrt(1+r²)-1)) = sqrt(2)·r / soft
    slope = np.sqrt(2.0) / soft - np.sqrt(2.0) * r * r / (2 * soft**3 * np.sqrt(1.0 + r * r))
    return np.sqrt(2.0) * r / soft, np.where(r == 0, 1.0, slope)
