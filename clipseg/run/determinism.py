"""The same numbers twice: what makes a run repeat bit for bit."""

import os

import torch


def set_deterministic(wanted: bool) -> None:
    """Compute what follows by algorithms that give the same bits each time, or by the fastest; called before a GPU is used.

    Everything random comes from the seed either way. On a CPU this makes equal runs equal bit for bit, for any number of
    `data.workers`. Another number of threads adds in another order and may differ in the last bits, as may another machine or
    version of torch.
    """
    if wanted:
        # cuBLAS reads it when it starts; without it torch refuses matrix products on a GPU.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(wanted)
    torch.backends.cudnn.deterministic = wanted
    torch.backends.cudnn.benchmark = False
