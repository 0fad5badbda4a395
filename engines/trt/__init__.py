"""TensorRT in two flavours over one builder, loader and runner: the data centre's, and the one for RTX workstations."""

from .builder import PlanOptions, PlanReport, build_plan
from .loader import EngineError, Flavour, availability, load_engine, load_flavour

__all__ = [
    "EngineError", "Flavour", "PlanOptions", "PlanReport", "availability", "build_plan", "load_engine", "load_flavour",
]  # fmt: skip
