"""The Hugging Face hub's client without its report of every retry: offline, that is 20 lines before the one that counts."""

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_hub() -> Iterator[None]:
    """Inside the block the client reports errors alone; progress bars stay."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
