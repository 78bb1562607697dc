"""The bundled CLIP: what it learns from, its losses, what it knows, and the file it ships as."""

import math

import numpy as np
import pytest
import torch
from safetensors import safe_open
from scipy import ndimage

from clipseg.data.mini.phrasecut import draw_image
from clipseg.data.mini.phrases import Description, Phrase
from clipseg.data.mini.scenes import RELATIONS, relation
from clipseg.errors import ClipSegError
from clipseg.network.mini_clip import MINI_CLIP_PATH, create_tokenizer, load_mini_clip, save_mini_clip
from clipseg.network.preprocess import normalise
from clipseg.tools.mini_clip_accuracy import zero_shot_accuracy
from clipseg.tools.mini_clip_drawings import ABSENT, PATCH_WORDS, PHRASE_WORDS, Drawing, Drawings, said_words
from clipseg.tools.train_mini_clip import (
    _encode_text,
    contrastive_loss,
    patch_loss,
    phrase_loss,
    pretrain,
    scale_residuals,
    tokenized,
    truth,
    vocabulary,
)

pytestmark = pytest.mark.slow


def test_captions_are_true_of_their_own_drawing_but_for_those_with_a_wrong_word():
    drawings = Drawings(0, count=40)
    images, captions, claims, facts, *_ = zip(*(drawings[index] for index in range(40)), strict=True)
    is_true = truth(torch.cat(claims), torch.stack(facts))
    own = is_true.unflatten(0, (40, -1))[torch.arange(40), :, torch.arange(40)]
    assert bool(own[:, ::2].all())
    assert not bool(own[:, 1::2].any())
    for claim, wrong in zip(torch.cat(claims)[::2], torch.cat(claims)[1::2], strict=True):
        assert int((claim != wrong).sum()) == 1
    texts = [text for each in captions for text in each]
    assert any(" left of a " in text for text in texts)
    assert any("striped" in text for text in texts)
    assert all(one != other for one, other in zip(texts[::2], texts[1::2], strict=True))
    assert all(image.shape == (3, 112, 112) and image.dtype == torch.uint8 for image in images)
    again = drawings[7]
    assert torch.equal(again[0], images[7])
    assert again[1] == captions[7]


def test_truth_counts_what_is_said_only():
    facts = torch.tensor([[0, 1, 2], [0, 3, 2]])
    claims = torch.tensor([[0, -1, 2], [0, 3, -1]])
    assert truth(claims, facts).tolist() == [[True, True], [False, True]]


def test_contrastive_loss_with_one_truth_each_is_clips():
    embeddings = torch.nn.functional.normalize(torch.randn(6, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    texts = embeddings.flip(1)
    loss = contrastive_loss(embeddings, texts, scale=torch.tensor(5.0), is_true=torch.eye(6, dtype=torch.bool))
    logits, labels = 5.0 * embeddings @ texts.T, torch.arange(6)
    expected = (torch.nn.functional.cross_entropy(logits, labels) + torch.nn.functional.cross_entropy(logits.T, labels)) / 2
    assert torch.allclose(loss, expected)


def test_a_caption_that_is_true_of_no_image_is_only_to_be_told_from():
    embeddings = torch.nn.functional.normalize(torch.randn(6, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    texts, scale = embeddings.flip(1), torch.tensor(5.0)
    is_true = torch.eye(6, dtype=torch.bool)[:, :4]
    logits, labels = scale * texts @ embeddings[:4].T, torch.arange(4)
    cross_entropy = torch.nn.functional.cross_entropy
    expected = (cross_entropy(logits[:4], labels) + cross_entropy(logits.T, labels)) / 2
    assert torch.allclose(contrastive_loss(embeddings[:4], texts, scale=scale, is_true=is_true), expected)


def test_patches_learn_the_words_of_what_covers_them():
    drawing = Drawings(0, count=9)[3]
    known = {tuple(words) for words in drawing.facts[:-1].view(3, 4).tolist()} | {(-2, -2, -2, -2)}
    assert {tuple(words) for words in drawing.patches[:, :4].tolist()} <= known
    right = torch.full((1, 49, sum(map(len, PATCH_WORDS)) + 1), -20.0)
    for place, words in enumerate(drawing.patches.tolist()):
        if words[0] >= 0:
            right[0, place, -1] = 20.0
        start = 0
        for choices, word in zip(PATCH_WORDS, words, strict=True):
            if word >= 0:
                right[0, place, start + word] = 20.0
            start += len(choices)
    assert patch_loss(right, drawing.patches[None]) < 1e-6
    assert patch_loss(-right, drawing.patches[None]) > 20


def test_the_category_of_a_patch_counts_four_times():
    patches = torch.zeros(1, 49, len(PATCH_WORDS), dtype=torch.int64)
    loss = patch_loss(torch.zeros(1, 49, sum(map(len, PATCH_WORDS)) + 1), patches)
    category, *others = (math.log(len(words)) for words in PATCH_WORDS)
    assert loss.item() == pytest.approx(category + (sum(others) + math.log(2)) / 4)


def test_a_relation_is_said_where_the_first_is_clearly_larger_and_wrong_where_it_is_turned_round():
    drawings, opposite = Drawings(0, count=300), {0: 1, 1: 0, 2: 3, 3: 2}
    turned = 0
    for index in range(300):
        scene, _ = drawings.scene(index)
        drawing = drawings[index]
        if drawing.facts[-1] >= 0:
            first, second, *_ = sorted(scene.objects, key=lambda thing: -int(thing.mask.sum()))
            assert first.mask.sum() >= 1.4 * second.mask.sum()
            assert first.kind.category != second.kind.category
            assert RELATIONS[drawing.facts[-1]] == relation(first, second)
        for claim, wrong in zip(drawing.claims[::2, -1].tolist(), drawing.claims[1::2, -1].tolist(), strict=True):
            assert wrong in (claim, opposite.get(claim))
            turned += wrong != claim
    assert turned > 20


def test_patches_that_nothing_relates_are_no_loss():
    patches = torch.full((1, 49, len(PATCH_WORDS)), ABSENT)
    patches[0, :9, :-1] = 0
    assert math.isfinite(patch_loss(torch.zeros(1, 49, sum(map(len, PATCH_WORDS)) + 1), patches))


def test_patches_know_how_their_thing_lies_to_the_largest_other():
    drawings = Drawings(0, count=60, crowded=60)
    for index in range(60):
        scene, _ = drawings.scene(index)
        things = sorted(scene.objects, key=lambda thing: -int(thing.mask.sum()))
        patches = drawings[index].patches.view(7, 7, -1)
        for place, thing in enumerate(things):
            word = relation(thing, things[1 if place == 0 else 0]) if len(things) > 1 else None
            row, column = np.unravel_index(np.argmax(ndimage.uniform_filter(thing.mask.astype(float), 9)), thing.mask.shape)
            if thing.mask[row // 16 * 16 :, column // 16 * 16 :][:16, :16].mean() > 0.5:
                assert patches[row // 16, column // 16, -1] == (RELATIONS.index(word) if word else ABSENT)


def test_phrases_learn_their_words():
    red_flag = Description("flag", "red", rank="second leftmost")
    said = said_words(Phrase(red_flag, "other than", Description("kite")))
    words = [choices[index] if index < len(choices) else None for choices, index in zip(PHRASE_WORDS, said, strict=True)]
    assert words == ["flag", "red", None, None, "second leftmost", "other than", "kite", None]
    right, start = torch.full((1, sum(len(choices) + 1 for choices in PHRASE_WORDS)), -20.0), 0
    for choices, index in zip(PHRASE_WORDS, said, strict=True):
        right[0, start + index] = 20.0
        start += len(choices) + 1
    assert phrase_loss(right, torch.tensor([said])) < 1e-6
    assert phrase_loss(-right, torch.tensor([said])) > 20


def test_a_batch_is_tokens_without_what_follows_the_longest():
    drawings = [Drawings(0, count=9)[index] for index in range(3)]
    batch = Drawing(*tokenized(drawings))
    tokenizer = create_tokenizer()
    for item, drawing in enumerate(drawings):
        for found, texts in ((batch.captions[item], drawing.captions), (batch.phrase[item][None], [drawing.phrase])):
            whole = tokenizer(texts)
            assert torch.equal(found, whole[:, : found.shape[1]])
            assert not bool(whole[:, found.shape[1] :].any())
        assert torch.equal(batch.claims[item], drawing.claims)


def test_scaled_residuals_change_no_embedding():
    model, _ = load_mini_clip(pretrained=False)
    tokens: list[torch.Tensor] = []
    model.visual.transformer.resblocks[8].register_forward_hook(lambda _, __, out: tokens.append(out))
    images = normalise(torch.stack([Drawings(0, count=64)[index].image for index in range(64)]).float() / 255)
    before = model.encode_image(images)
    scale_residuals(model)
    torch.testing.assert_close(model.encode_image(images), before, rtol=1e-3, atol=1e-3)
    assert abs(tokens[-1].square().mean().sqrt() - 1) < 0.01 < abs(tokens[0].square().mean().sqrt() - 1)


def test_shorter_texts_are_read_as_the_tower_reads_them():
    model, tokenizer = load_mini_clip(pretrained=False)
    tokens = tokenizer(["a photo of a red flag.", "kite"])
    torch.testing.assert_close(_encode_text(model, tokens[:, :9]), model.encode_text(tokens), rtol=1e-5, atol=1e-6)


def test_the_shipped_clip_is_small_and_knows_its_words():
    assert MINI_CLIP_PATH.stat().st_size <= 6_000_000
    model, tokenizer = load_mini_clip()
    assert len(model.visual.transformer.resblocks) == 12
    known = set(vocabulary())
    texts = [phrase.text for index in range(20) for phrase in draw_image("train", index)[1]]
    assert set(tokenizer(texts).flatten().tolist()) <= known
    rows = model.token_embedding.weight.detach()
    assert bool((rows.norm(dim=1) > 0).all())
    with safe_open(str(MINI_CLIP_PATH), framework="pt") as file:
        assert set(file.get_tensor("token_ids").tolist()) <= known


def test_words_it_was_never_taught_are_told_apart_the_same_way_each_time():
    (model, tokenizer), (again, _) = load_mini_clip(), load_mini_clip()
    person, dog = model.encode_text(tokenizer(["person", "dog"]))
    assert not torch.allclose(person, dog, atol=0.1)
    assert torch.equal(model.token_embedding.weight, again.token_embedding.weight)


def test_the_shipped_clip_names_what_it_sees():
    model, _ = load_mini_clip()
    accuracy = zero_shot_accuracy(model, count=192, seed=77)
    assert accuracy["pair"] >= 0.95
    assert accuracy["category"] >= 0.95
    assert accuracy["pattern"] >= 0.95
    assert accuracy["relation"] >= 0.9


def test_random_weights_leave_the_global_state_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first, _ = load_mini_clip(pretrained=False, seed=4)
    assert torch.equal(torch.rand(3), expected)
    second, _ = load_mini_clip(pretrained=False, seed=4)
    other, _ = load_mini_clip(pretrained=False, seed=5)
    assert torch.equal(first.visual.proj, second.visual.proj)
    assert not torch.equal(first.visual.proj, other.visual.proj)


def test_weights_survive_the_file(tmp_path):
    model, tokenizer = load_mini_clip(pretrained=False, seed=2)
    save_mini_clip(model, tmp_path / "clip.safetensors", token_ids=vocabulary(), metadata={"seed": 2})
    loaded, _ = load_mini_clip(tmp_path / "clip.safetensors")
    with torch.no_grad():
        texts = tokenizer(["a photo of a red flag."])
        assert torch.allclose(loaded.encode_text(texts), model.encode_text(texts), atol=2e-3)
        image = torch.rand(1, 3, 112, 112)
        assert torch.allclose(loaded.encode_image(image), model.encode_image(image), atol=1e-2)


def test_other_files_are_refused_in_one_line(tmp_path):
    with pytest.raises(ClipSegError, match="no such file"):
        load_mini_clip(tmp_path / "none")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\x10\0\0\0\0\0\0\0garbage")
    with pytest.raises(ClipSegError, match="damaged"):
        load_mini_clip(broken)
    model, _ = load_mini_clip(pretrained=False)
    del model.ln_final
    save_mini_clip(model, tmp_path / "less.safetensors", token_ids=vocabulary(), metadata={})
    with pytest.raises(ClipSegError, match=r"2 tensors differ \(first: ln_final\.bias\)"):
        load_mini_clip(tmp_path / "less.safetensors")


def test_pretraining_runs_and_repeats(tmp_path, monkeypatch):
    monkeypatch.setattr("clipseg.tools.train_mini_clip.zero_shot_accuracy", lambda model: {"pair": 0.0})
    for name in ("first", "second"):
        assert pretrain(tmp_path / name, steps=2, batch_size=4) == {"pair": 0.0}
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
