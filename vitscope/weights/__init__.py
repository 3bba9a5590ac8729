"""FILE → MODULE: weights of timm, of the papers' authors, or of our own, put into a network of ours."""

from vitscope.weights.load import LoadReport, load_state, load_weights
from vitscope.weights.read import WeightsError

__all__ = ["LoadReport", "WeightsError", "load_state", "load_weights"]
