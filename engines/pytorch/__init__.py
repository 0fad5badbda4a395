"""The graph's own module, run by PyTorch: as it stands, or through torch.compile."""

from .runner import CompiledRunner, EagerRunner, compile_availability

__all__ = ["CompiledRunner", "EagerRunner", "compile_availability"]
