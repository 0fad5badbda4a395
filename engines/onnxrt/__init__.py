"""ONNX Runtime on the CPU and on CUDA, without copies through the host."""

from .loader import availability, session_from_onnx
from .runner import OnnxRuntimeRunner

__all__ = ["OnnxRuntimeRunner", "availability", "session_from_onnx"]
