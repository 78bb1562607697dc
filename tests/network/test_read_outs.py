import pytest

from clipseg.errors import ClipSegError
from clipseg.network.model import create_model
from clipseg.network.read_outs import are_fractions, blocks_at


@pytest.mark.parametrize(
    ("fractions", "depth", "blocks"),
    [
        ((0.25, 0.58, 0.75), 12, (3, 7, 9)),
        ((0.25, 0.58, 0.75), 24, (6, 14, 18)),
        ((0.125, 0.875), 12, (2, 11)),  # 1.5 and 10.5: a half goes upwards
        ((0.01, 0.999), 12, (0, 11)),
    ],
)
def test_fractions_of_the_depth(fractions: tuple[float, ...], depth: int, blocks: tuple[int, ...]):
    assert blocks_at(fractions, depth) == blocks


def test_fractions_too_close():
    with pytest.raises(ClipSegError, match=r"blocks \(3, 3\) of 4; choose fractions further apart"):
        blocks_at((0.75, 0.8), 4)


@pytest.mark.parametrize(("layers", "expected"), [((0.25, 0.5), True), ((3, 7, 9), False), ((0,), False), ((3.0, 7.0), False)])
def test_which_is_which(layers: tuple[float, ...], expected: bool):
    assert are_fractions(layers) == expected


@pytest.mark.parametrize("layers", [(0.25, 7), (3.5, 7), (1.2,), (-0.5, 0.5), (0, 0.5)])
def test_mixtures_are_refused(layers: tuple[float, ...]):
    with pytest.raises(ClipSegError, match=r"whole block indices, such as .* or fractions"):
        are_fractions(layers)


def test_the_stored_config_holds_indices():
    config = create_model("mini", extract_layers=[0.25, 0.58, 0.75], reduce_dim=4).config
    assert config.extract_layers == (3, 7, 9)
    assert all(type(layer) is int for layer in config.extract_layers)
    assert create_model("mini", extract_layers=[3.0, 7.0], reduce_dim=4).config.extract_layers == (3, 7)


@pytest.mark.parametrize("layers", [[0.75, 0.25], [9, 3], []])
def test_read_outs_out_of_order(layers: list[float]):
    with pytest.raises(ClipSegError, match="ascending"):
        create_model("mini", extract_layers=layers, reduce_dim=4)
