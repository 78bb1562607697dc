"""The cost of a call in torch: how many operations other than views, and how many values it reads back, for each of which a GPU
would wait."""

from collections import Counter
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

READS = {"_local_scalar_dense", "nonzero", "masked_select", "unique_dim", "_unique2"}  # what also needs values to know a shape


class Operations(TorchDispatchMode):
    """Count while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[function.overloadpacket.__name__] += not function.is_view
        return function(*args, **kwargs or {})

    @property
    def total(self) -> int:
        return self.counts.total()

    @property
    def reads(self) -> int:
        return sum(self.counts[name] for name in READS)
