import pytest
import torch
from torch import nn

from clipseg.network.cpu_kernels import Dropout, Unpatch
from clipseg.network.decoder import Decoder, DecoderBlock, build_decoder, patch_map, refined_head

PAPER = {"width": 768, "embed_dim": 512, "patch_size": 16, "depth": 3}


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def paper_decoder(head: str = "plain", reduce_dim: int = 64) -> Decoder:
    decoder = build_decoder("clipseg", **PAPER, reduce_dim=reduce_dim, head=head, seed=0)
    assert isinstance(decoder, Decoder)
    return decoder


def test_parameters_are_those_of_the_paper():
    decoder = paper_decoder()
    assert parameters(decoder.film) == 65_664
    assert parameters(decoder.reductions) == 147_648
    assert parameters(decoder.blocks) == 843_456
    assert parameters(decoder.head) == 16_385
    assert parameters(decoder) == 1_073_153
    # The paper's own count holds one more projection of 768 x 64 weights, which the forward pass never uses.
    assert parameters(decoder) + 768 * 64 == 1_122_305


@pytest.mark.parametrize("dim", [16, 64])
def test_a_block_is_the_librarys(dim: int):
    torch.manual_seed(0)
    block = DecoderBlock(dim).eval()
    library = nn.TransformerEncoderLayer(dim, nhead=4, dim_feedforward=2048, batch_first=True).eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    ours = {
        "self_attn.in_proj_": block.qkv,
        "self_attn.out_proj.": block.project,
        "linear1.": block.expand,
        "linear2.": block.contract,
        "norm1.": block.norm1,
        "norm2.": block.norm2,
    }
    state = {f"{name}{kind}": getattr(module, kind) for name, module in ours.items() for kind in ("weight", "bias")}
    library.load_state_dict(state, strict=True)
    x = torch.randn(2, 10, dim)
    torch.testing.assert_close(block(x), library(x), rtol=1e-4, atol=1e-5)


def test_a_block_starts_as_the_librarys():
    block, library = DecoderBlock(64), nn.TransformerEncoderLayer(64, nhead=4)
    for ours, theirs in ((block.qkv, library.self_attn.in_proj_weight), (block.expand, library.linear1.weight)):
        assert abs(ours.weight.std() / theirs.std() - 1) < 0.05
    assert not block.qkv.bias.any()
    assert not block.project.bias.any()
    assert block.dropout.p == library.dropout.p == 0.1


@pytest.mark.parametrize("head", ["plain", "refined"])
@pytest.mark.parametrize("patch_size", [14, 16, 32])
def test_logits_have_the_size_of_the_image(head: str, patch_size: int):
    decoder = build_decoder("clipseg", width=24, embed_dim=8, patch_size=patch_size, depth=2, reduce_dim=8, head=head, seed=0)
    activations = [torch.randn(1, 1 + 2 * 3, 24) for _ in range(2)]
    logits = decoder(activations, torch.randn(1, 8), torch.tensor([0]), (2, 3))
    assert logits.shape == (1, 2 * patch_size, 3 * patch_size)


def test_the_refined_head_upsamples_by_four_twice_at_the_papers_patch_size():
    shapes = [tuple(module.weight.shape) for module in refined_head(64, 16) if not isinstance(module, nn.ReLU)]
    assert shapes == [(64, 64, 3, 3), (64, 32, 4, 4), (32, 1, 4, 4)]


def test_tokens_are_laid_out_row_by_row_without_the_class_token():
    tokens = torch.arange(7.0)[None, :, None]
    assert patch_map(tokens, (2, 3))[0, 0].tolist() == [[1, 2, 3], [4, 5, 6]]


def test_the_condition_enters_before_the_first_block_and_deepest_comes_first():
    decoder = paper_decoder().eval()
    calls: list[str] = []
    decoder.film.register_forward_hook(lambda *_: calls.append("film"))
    for index, (reduction, block) in enumerate(zip(decoder.reductions, decoder.blocks, strict=True)):
        reduction.register_forward_pre_hook(lambda _, args, i=index: calls.append(f"reduce {i}: {args[0].mean().item():.0f}"))
        block.register_forward_hook(lambda *_, i=index: calls.append(f"block {i}"))
    activations = [torch.full((1, 5, 768), float(layer)) for layer in (3, 7, 9)]
    decoder(activations, torch.randn(1, 512), torch.tensor([0]), (2, 2))
    assert [call for call in calls if call.startswith("reduce")] == ["reduce 0: 9", "reduce 1: 7", "reduce 2: 3"]
    assert [call for call in calls if not call.startswith("reduce")] == ["film", "block 0", "block 1", "block 2"]


def test_the_seed_alone_decides_the_initial_weights():
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = paper_decoder(reduce_dim=16).state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    second = paper_decoder(reduce_dim=16).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_deconv_is_the_deepest_read_out_without_attention():
    decoder = build_decoder("deconv", **(PAPER | {"depth": 1}), reduce_dim=64, head="plain", seed=0)
    assert parameters(decoder) == (768 * 64 + 64) + 65_664 + 2 * (64 * 64 + 64) + 16_385
    assert not any(isinstance(module, (DecoderBlock, nn.MultiheadAttention)) for module in decoder.modules())
    tokens = torch.randn(1, 5, 768)
    changed = tokens.clone()
    changed[:, 1] += 1
    condition, index = torch.randn(1, 512), torch.tensor([0])
    difference = decoder([tokens], condition, index, (2, 2)) - decoder([changed], condition, index, (2, 2))
    assert difference[0, :16, :16].abs().min() > 0
    assert not difference[0, 16:].any(), "a token's logits must not depend on other tokens"
    assert not difference[0, :, 16:].any()


def test_dropout_drops_its_share_keeps_the_mean_and_follows_the_seed():
    dropout = Dropout(0.1).train()
    x = torch.ones(101, 103, 7)  # no multiple of four elements
    torch.manual_seed(0)
    once = dropout(x)
    torch.manual_seed(0)
    assert torch.equal(once, dropout(x))
    assert not torch.equal(once, dropout(x))
    assert (once == 0).float().mean() == pytest.approx(0.1, abs=0.005)
    assert once.mean() == pytest.approx(1, abs=0.005)
    assert torch.equal(dropout.eval()(x), x)
    # Neighbours share a draw, not a fate.
    flat = (dropout.train()(x) == 0).flatten()[: 4 * (x.numel() // 4)].view(-1, 4).float()
    assert torch.corrcoef(flat.T).fill_diagonal_(0).abs().max() < 0.03


def test_dropout_lets_the_gradient_of_what_it_kept_through():
    x = torch.ones(1000, requires_grad=True)
    y = Dropout(0.5).train()(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_dropout_in_the_memory_of_a_rectified_tensor_is_dropout_of_it():
    dropout, x, gradient = Dropout(0.3).train(), torch.randn(50, 31, requires_grad=True), torch.randn(50, 31)
    results = []
    for way in (lambda hidden: dropout(hidden.relu()), dropout.after_relu_):
        torch.manual_seed(0)
        hidden = x * 2
        x.grad = None
        y = way(hidden)
        y.backward(gradient)
        results.append((y.detach(), x.grad))
    assert y is hidden
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[1][1], results[0][1], rtol=1e-6, atol=0)
    with torch.no_grad():
        assert torch.equal(dropout.eval().after_relu_(x * 2), (x * 2).relu())


@torch.no_grad()
def test_attention_drops_weights_and_keeps_their_mean():
    torch.manual_seed(0)
    block, x = DecoderBlock(16, dropout=0.5), torch.randn(1, 7, 16)
    whole = block.eval().attend(x)
    dropped = block.train().attend(x.expand(20_000, -1, -1))
    assert (dropped != whole).all(dim=(1, 2)).float().mean() > 0.9
    torch.testing.assert_close(dropped.mean(dim=0, keepdim=True), whole, rtol=0, atol=0.02)


def test_a_block_without_dropout_computes_the_same_in_training():
    block, x = DecoderBlock(16, dropout=0.0), torch.randn(3, 7, 16)
    torch.testing.assert_close(block.train()(x), block.eval()(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("channels", "side"), [(1, 16), (5, 4)])
def test_unpatch_is_a_transposed_convolution(channels, side):
    head = Unpatch(8, channels, side)
    maps = torch.randn(2, 8, 3, 5)
    torch.testing.assert_close(head(maps), nn.ConvTranspose2d.forward(head, maps))
