"""The frozen CLIP: text -> embedding, image -> embedding, image -> the activations of chosen blocks.

Built on open_clip's modules and weights; the forward pass of its vision transformer is written out here, since we stop early,
take any input size the patch divides, and resample the positions as the paper does. Nothing here knows of decoders or data.
"""

import contextlib
import functools
import hashlib
import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from open_clip.transformer import VisionTransformer, text_global_pool
from torch import Tensor, nn

from clipseg.errors import ClipSegError
from clipseg.network.blocks import causal_attention, run_block
from clipseg.ragged import send

Tokenizer = Callable[[list[str]], Tensor]


class Activations(tuple[Tensor, ...]):
    """Token sequences `[B, 1 + h*w, C]`, shallow to deep, CLS first.

    Attributes:
        grid: (h, w) of their patches.
        size: (H, W) of the images in pixels; the patches' own, unless the images were resampled to a tower's.
    """

    grid: tuple[int, int]
    size: tuple[int, int]

    def __new__(cls, tokens: Iterable[Tensor], grid: tuple[int, int], size: tuple[int, int]) -> "Activations":
        self = super().__new__(cls, tokens)
        self.grid, self.size = grid, size
        return self


class CLIPBackbone(nn.Module):
    """A CLIP with a vision transformer, frozen: no parameter takes a gradient, and it stays in evaluation mode.

    Args:
        clip: an open_clip model whose image tower is a `VisionTransformer`.
        tokenizer: list of strings -> int64 tokens `[N, context_length]`.
        name: what errors call it.

    Attributes:
        precision: of the products of the blocks (`cpu_kernels.choose_precision`); sums and norms stay in float32.
        width: C, of the image tower that activations come from. depth: its number of blocks. patch_size: P. embed_dim: E.
    """

    clip: Any  # open_clip's modules are untyped

    def __init__(self, clip: nn.Module, tokenizer: Tokenizer, *, name: str):
        super().__init__()
        visual = clip.visual
        if not isinstance(visual, VisionTransformer) or visual.attn_pool is not None or visual.pool_type != "tok":
            raise ClipSegError(
                f"backbone {name!r} has no vision transformer with a class token; choose an open_clip ViT such as ViT-B-16"
            )
        self.clip = clip
        self.tokenizer = tokenizer
        self.name = name
        self.width: int = visual.conv1.out_channels
        self.depth = len(visual.transformer.resblocks)
        self.patch_size: int = visual.patch_size[0]
        self.embed_dim: int = visual.output_dim
        self.precision = torch.float32
        self.run_block: Callable[..., Tensor] = run_block
        self.run_prompt_block: Callable[..., Tensor] = run_block
        self.requires_grad_(False)
        self.eval()

    def compile_blocks(self) -> None:
        """Have torch.compile fuse the steps of the image tower's blocks; the first calls take longer.

        On a GPU those that `activations` runs become CUDA graphs, for one shape: batches of another are compiled anew.
        """
        device = self.clip.visual.conv1.weight.device
        self.run_block = compiled(run_block, device)
        self.run_prompt_block = torch.compile(run_block)  # prompt images are as many as the batch happens to have

    def train(self, mode: bool = True) -> "CLIPBackbone":
        """Stay in evaluation mode, whatever the model around it does: frozen is frozen."""
        return super().train(False)

    @torch.no_grad()
    def activations(self, images: Tensor, layers: Sequence[int]) -> Activations:
        """The token sequences after the blocks with the given 0-based indices; blocks behind the deepest are not run.

        Args:
            images: float `[B, 3, H, W]`, normalised; P divides H and W.
            layers: ascending block indices; the paper's are 3, 7, 9.
        """
        tokens, grid = self.embed(images)
        found = self.read_out(self.clip.visual.transformer.resblocks, tokens, layers)
        return Activations(found, grid, (images.shape[2], images.shape[3]))

    @torch.no_grad()
    def encode_image(self, images: Tensor) -> Tensor:
        """CLIP's image embedding, by the whole tower: normalised float `[N, 3, H, W]` -> `[N, E]`, not normalised."""
        tokens, _ = self.embed(images)
        with self.in_precision():
            for block in self.clip.visual.transformer.resblocks:
                tokens = self.run_prompt_block(block, tokens)
        return self.embedding(tokens)

    def read_out(self, blocks: Iterable[nn.Module], tokens: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """The tokens `[B, T, C]` after the blocks with the given ascending indices; blocks behind the deepest are not run."""
        found = []
        if self.run_block is not run_block:
            torch.compiler.cudagraph_mark_step_begin()  # what the graphs of the step before have left may be overwritten
        with self.in_precision():
            for index, block in enumerate(itertools.islice(blocks, layers[-1] + 1)):
                tokens = self.run_block(block, tokens)
                if index in layers:
                    found.append(tokens)
        return found

    def in_precision(self) -> contextlib.AbstractContextManager[Any]:
        """The context of the blocks."""
        device, plain = self.clip.visual.conv1.weight.device.type, self.precision == torch.float32
        return contextlib.nullcontext() if plain else torch.autocast(device, self.precision)

    def embedding(self, tokens: Tensor) -> Tensor:
        """The last block's tokens -> `[N, E]`. The norm works token by token, so that of the class token is all it takes."""
        return self.clip.visual.ln_post(tokens[:, 0]) @ self.clip.visual.proj

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """CLIP's text embedding: N strings -> `[N, E]`, not normalised. Texts over CLIP's context are cut, with a warning."""
        tokens = self.tokenize(texts)
        if self.has_plain_text_tower:
            # The text tower is causal and read at the end-of-text token: what follows it cannot change the result.
            tokens = tokens[:, : int(tokens.numpy().argmax(axis=-1).max()) + 1]
        return self.encode_tokens(send(tokens, self.clip.visual.conv1.weight.device))

    @torch.no_grad()
    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """As `encode_text`, from int64 tokens `[N, L]`; a plain text tower takes any L up to its context length."""
        clip = self.clip
        if not self.has_plain_text_tower:
            return clip.encode_text(tokens)
        x = clip.token_embedding(tokens) + clip.positional_embedding[: tokens.shape[1]]
        with self.in_precision():
            for block in clip.transformer.resblocks:
                x = run_block(block, x, attend=causal_attention)
        x = text_global_pool(clip.ln_final(x), tokens, clip.text_pool_type)
        return clip.text_projection(x) if isinstance(clip.text_projection, nn.Linear) else x @ clip.text_projection

    @property
    def has_plain_text_tower(self) -> bool:
        """Whether the text tower is CLIP's own: causal, and read at the end-of-text token."""
        return isinstance(self.clip, CLIP) and self.clip.text_pool_type == "argmax"

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """N strings -> int64 `[N, context_length]` on the CPU; a warning counts the texts that were cut."""
        if isinstance(texts, str):
            texts = [texts]
        if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
            raise ClipSegError(f"texts of type {type(texts).__name__}; expected a list of strings, such as ['a dog', 'sky']")
        if not texts:
            raise ClipSegError("no texts; pass at least one")
        with torch.device("cpu"):  # where the tokenizer fills them in, whatever the default device
            tokens = self.tokenizer(list(texts))
        encode = getattr(self.tokenizer, "encode", None)
        if encode is not None:
            # Only a row without padding can have been cut; two places are the start and end of text.
            full = [text for text, last in zip(texts, tokens[:, -1].tolist(), strict=True) if last]
            cut = [text for text in full if len(encode(text)) + 2 > tokens.shape[1]]
            if cut:
                warnings.warn(
                    f"{len(cut)} text(s) cut to CLIP's {tokens.shape[1]} tokens, such as {cut[0][:60]!r}…", stacklevel=3
                )
        return tokens

    def checksum(self) -> str:
        """SHA-256 over all weights in float32: which CLIP a decoder was trained on."""
        return weights_checksum(self.clip)

    def embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Pixels -> tokens ready for the first block: patches, class token, positions, norm."""
        visual = self.clip.visual
        check_images(images, visual.patch_size[0], visual.conv1.weight.dtype)
        side = visual.patch_size[0]
        grid = (images.shape[2] // side, images.shape[3] // side)
        # A convolution whose stride is its width is a product, for which no kernel has to be chosen anew at each batch size.
        pixels = images.unflatten(3, (-1, side)).unflatten(2, (-1, side)).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        patches = F.linear(pixels, visual.conv1.weight.flatten(1), visual.conv1.bias)
        cls = visual.class_embedding.to(patches.dtype).expand(patches.shape[0], 1, -1)
        return visual.ln_pre(torch.cat([cls, patches], dim=1) + self._positions(grid)), grid

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        """The positional embedding of the image tower at a grid."""
        visual = self.clip.visual
        return resample_positions(visual.positional_embedding, tuple(visual.grid_size), grid)


def resample_positions(positions: Tensor, native: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Positions `[1 + n, C]`, class token first, of a `native` grid -> at another: plain bicubic, no antialiasing, corners not
    aligned (docs/paper.md, Sec. 1)."""
    if grid == native:
        return positions
    # What is traced sees no real tensors, which must not be kept.
    weights_of = _bicubic_weights.__wrapped__ if torch.compiler.is_compiling() else _bicubic_weights
    weights = weights_of(native, grid, positions.device).to(positions.dtype)
    with torch.autocast(positions.device.type, enabled=False):
        return torch.cat([positions[:1], weights @ positions[1:]])


@functools.cache
def _bicubic_weights(native: tuple[int, int], grid: tuple[int, int], device: torch.device) -> Tensor:
    """What each position of a native grid counts at each of another: float32 `[h*w, n]`.

    Resampling hundreds of channels of a few positions anew takes a GPU as long as two of the blocks.
    """
    with torch.inference_mode(False):
        single = torch.eye(math.prod(native), device=device).unflatten(1, native)[None]
        return F.interpolate(single, size=grid, mode="bicubic", align_corners=False)[0].flatten(1).T.contiguous()


def compiled(function: Any, device: torch.device) -> Any:
    """A function or module by torch.compile, for one shape; on a GPU its kernels start as one CUDA graph."""
    return torch.compile(function, dynamic=False, mode="reduce-overhead" if device.type == "cuda" else None)


def weights_checksum(module: nn.Module) -> str:
    """SHA-256 over the names and float32 values of a module's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.float().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def check_dtype(called: str, tensor: Tensor, dtype: torch.dtype) -> None:
    """Raise `ClipSegError` unless a tensor is of the model's dtype, or autocast makes it so."""
    if tensor.dtype != dtype and not torch.is_autocast_enabled(tensor.device.type):
        raise ClipSegError(f"{called} of {tensor.dtype}, but the model computes in {dtype}; convert one of them by .to(dtype)")


def check_images(images: Tensor, patch_size: int, dtype: torch.dtype) -> None:
    """Raise `ClipSegError` unless `images` is a float `[B, 3, H, W]` of the model's dtype that the patch size divides."""
    if not isinstance(images, Tensor):
        raise ClipSegError(f"images of type {type(images).__name__}; expected a tensor, float [B, 3, H, W], normalised")
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ClipSegError(f"images: {images.dtype} of shape {tuple(images.shape)}; expected float [B, 3, H, W], normalised")
    height, width = images.shape[2:]
    if height % patch_size or width % patch_size or 0 in (height, width):
        near = [max(round(side / patch_size), 1) * patch_size for side in (height, width)]
        raise ClipSegError(
            f"image size {height}x{width} is no multiple of the patch size {patch_size}; resize to {near[0]}x{near[1]}"
        )
    check_dtype("images", images, dtype)
