"""Which blocks the decoder reads: given as indices, or as fractions of the depth, which mean the same in any ViT."""

from collections.abc import Sequence

from clipseg.errors import ClipSegError


def are_fractions(layers: Sequence[float]) -> bool:
    """Whether read-outs are given as fractions of the depth, all strictly between 0 and 1, and not as indices.

    Raises:
        ClipSegError: neither, or a mixture of both.
    """
    fractions = sum(0 < layer < 1 for layer in layers)
    indices = sum(layer % 1 == 0 for layer in layers)
    if len(layers) not in (fractions, indices):
        raise ClipSegError(
            f"extract_layers={tuple(layers)}: give whole block indices, such as (3, 7, 9), or fractions of the depth "
            "between 0 and 1, such as (0.25, 0.58, 0.75), not both"
        )
    return fractions > 0


def blocks_at(fractions: Sequence[float], depth: int) -> tuple[int, ...]:
    """Fractions of the depth -> 0-based block indices.

    The index is fraction x depth, rounded to the nearest (a half upwards), and at most that of the last block. Of 12 blocks
    0.25, 0.58 and 0.75 are the paper's 3, 7 and 9 (3, 6.96 and 9 before rounding); of 24 they are 6, 14 and 18.

    Raises:
        ClipSegError: two fractions that mean the same block.
    """
    blocks = tuple(min(int(fraction * depth + 0.5), depth - 1) for fraction in fractions)
    if len(set(blocks)) < len(blocks):
        raise ClipSegError(f"extract_layers={tuple(fractions)} are blocks {blocks} of {depth}; choose fractions further apart")
    return blocks
