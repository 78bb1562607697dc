"""The CLIPSeg decoder: activations of a frozen ViT + a conditional vector -> one logit a pixel (paper Sec. 3, Fig. 2).

Shape letters: N prompts, T = 1 + h*w tokens (CLS first) of an h x w patch grid, C backbone width, D decoder width, E embedding
width, P patch size in pixels.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipseg.network.cpu_kernels import Dropout, Linear, Unpatch


class Decoder(nn.Module):
    """The paper's decoder: one reduction and one transformer block a read-out, deepest read-out first, FiLM before the first
    block.

    Args:
        width: C, the width of the activations.
        embed_dim: E, the width of the conditional vector.
        patch_size: P.
        depth: how many read-outs there are, and so how many blocks.
        reduce_dim: D; 64 in the paper, 16 and 128 in its tables.
        head: "plain" or "refined" (the later "rd64-refined").
    """

    def __init__(self, *, width: int, embed_dim: int, patch_size: int, depth: int, reduce_dim: int, head: str):
        super().__init__()
        self.reductions = nn.ModuleList(Linear(width, reduce_dim) for _ in range(depth))
        self.film = FiLM(embed_dim, reduce_dim)
        self.blocks = nn.ModuleList(DecoderBlock(reduce_dim) for _ in range(depth))
        self.head = HEADS[head](reduce_dim, patch_size)

    def forward(self, activations: Sequence[Tensor], condition: Tensor, image_index: Tensor, grid: tuple[int, int]) -> Tensor:
        """Decode N prompts over B images.

        Args:
            activations: float `[B, T, C]` a read-out, shallow to deep.
            condition: float `[N, E]`, not normalised.
            image_index: int64 `[N]`, the image of each prompt.
            grid: (h, w) of the patch tokens.

        Returns:
            logits `[N, h*P, w*P]`.
        """
        # Deepest first, as the modules are kept. An image is reduced once, whatever the number of its prompts.
        pairs = zip(self.reductions, reversed(activations), strict=True)
        deepest, *others = [reduce(activation)[image_index] for reduce, activation in pairs]
        a = self.blocks[0](self.film(deepest, condition))
        for block, reduced in zip(self.blocks[1:], others, strict=True):
            a = block(reduced + a)
        return self.head(patch_map(a, grid))[:, 0]


class FiLM(nn.Module):
    """Feature-wise linear modulation: every channel is scaled and shifted by what the conditional vector says."""

    def __init__(self, embed_dim: int, dim: int):
        super().__init__()
        self.scale = Linear(embed_dim, dim)
        self.shift = Linear(embed_dim, dim)

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """tokens `[N, T, D]`, condition `[N, E]` -> `[N, T, D]`."""
        return self.scale(condition)[:, None] * tokens + self.shift(condition)[:, None]


class DecoderBlock(nn.Module):
    """A post-norm transformer block (Vaswani et al. 2017): self-attention and a ReLU feed-forward, each added, then normalised.

    The released feed-forward width is 2048 even at D = 64 and holds most of the decoder's parameters.
    """

    def __init__(self, dim: int, *, heads: int = 4, feedforward: int = 2048, dropout: float = 0.1):
        super().__init__()
        self.heads = heads
        self.qkv = Linear(dim, 3 * dim)
        self.project = Linear(dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.expand = Linear(dim, feedforward)
        self.contract = Linear(feedforward, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)
        # As torch initialises attention, which is what the paper trained from.
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.project.bias)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, T, D]` -> `[N, T, D]`."""
        x = self.norm1(x + self.dropout(self.attend(x)))
        # Flat, since what follows works in place, which autograd makes dear for a tensor that is the view of another.
        hidden = self.dropout.after_relu_(self.expand(x.flatten(0, 1)))
        return self.norm2(x + self.dropout(self.contract(hidden).view(x.shape)))

    def attend(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        if self.dropout.is_our_own(x):
            # torch fuses attention with dropout on GPUs only. The scales go where there is less to multiply.
            weights = torch.softmax(q * q.shape[-1] ** -0.5 @ k.mT, dim=-1)
            keep, scale = self.dropout.draw(weights)
            mixed = torch.where(keep, weights, 0.0) @ (v * scale)
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout.p if self.training else 0.0)
        return self.project(mixed.transpose(1, 2).reshape(n, t, d))


def plain_head(dim: int, patch_size: int) -> nn.Module:
    """`[N, D, h, w]` -> `[N, 1, h*P, w*P]`: one linear map from a token to its patch of P x P logits (paper Sec. 3)."""
    return Unpatch(dim, 1, patch_size)


def refined_head(dim: int, patch_size: int) -> nn.Module:
    """`[N, D, h, w]` -> `[N, 1, h*P, w*P]`: the finer head of "rd64-refined", a 3 x 3 convolution and upsampling in two steps.

    Deviation: the steps are P/4 and 4 (7 and 2 for P = 14); the released code takes P/4 twice, which is right only at P = 16.
    """
    last = 4 if patch_size % 4 == 0 else 2
    first = patch_size // last
    assert first * last == patch_size, f"the refined head needs an even patch size, not {patch_size}"
    return nn.Sequential(
        nn.Conv2d(dim, dim, kernel_size=3, padding=1),
        nn.ReLU(),
        Unpatch(dim, dim // 2, first),
        nn.ReLU(),
        Unpatch(dim // 2, 1, last),
    )


HEADS = {"plain": plain_head, "refined": refined_head}


def patch_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Drop the CLS token and lay the others out on the grid: `[N, 1 + h*w, D]` -> `[N, D, h, w]`."""
    return tokens[:, 1:].transpose(1, 2).unflatten(2, grid)


class DeconvDecoder(nn.Module):
    """The CLIP-Deconv baseline (paper Sec. 5.1): one read-out, FiLM, an MLP a token and the plain head; no attention."""

    def __init__(self, *, width: int, embed_dim: int, patch_size: int, reduce_dim: int):
        super().__init__()
        self.reduction = Linear(width, reduce_dim)
        self.film = FiLM(embed_dim, reduce_dim)
        self.mlp = nn.Sequential(Linear(reduce_dim, reduce_dim), nn.ReLU(), Linear(reduce_dim, reduce_dim))
        self.head = plain_head(reduce_dim, patch_size)

    def forward(self, activations: Sequence[Tensor], condition: Tensor, image_index: Tensor, grid: tuple[int, int]) -> Tensor:
        """As `Decoder.forward`, with one read-out."""
        (activation,) = activations
        a = self.film(self.reduction(activation)[image_index], condition)
        return self.head(patch_map(self.mlp(a), grid))[:, 0]


class RandomHead(nn.Module):
    """ViTSeg's way from a prompt image's class token to a condition: a Linear drawn from `seed`, saved but never trained."""

    weight: Tensor
    bias: Tensor

    def __init__(self, width: int, embed_dim: int, *, seed: int):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            linear = nn.Linear(width, embed_dim)
        self.register_buffer("weight", linear.weight.detach())
        self.register_buffer("bias", linear.bias.detach())

    def forward(self, tokens: Tensor) -> Tensor:
        """Class tokens `[N, C]` -> conditions `[N, E]`."""
        return F.linear(tokens, self.weight, self.bias)


def build_decoder(
    kind: str, *, width: int, embed_dim: int, patch_size: int, depth: int, reduce_dim: int, head: str, seed: int
) -> nn.Module:
    """The decoder named "clipseg" or "deconv", initialised from `seed` alone (the global generator is left as it was)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "deconv":
            return DeconvDecoder(width=width, embed_dim=embed_dim, patch_size=patch_size, reduce_dim=reduce_dim)
        return Decoder(width=width, embed_dim=embed_dim, patch_size=patch_size, depth=depth, reduce_dim=reduce_dim, head=head)
