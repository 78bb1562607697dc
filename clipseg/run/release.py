"""A finished run -> a folder to publish: the decoder as safetensors, how to build it, and a model card that says what it is."""

import math
from collections.abc import Mapping
from pathlib import Path

from clipseg.errors import ClipSegError, one_line
from clipseg.files import check_new_folder, read_json
from clipseg.measure.page import fill_template
from clipseg.measure.tables import format_table
from clipseg.network.tensor_files import quiet_hub
from clipseg.network.weights import load, save_release


def release(run: Path, out: Path, *, licence: str) -> None:
    """Write the last checkpoint of the run folder `run` into the folder `out`, with the figures of its `eval/` folders.

    Args:
        run: an output folder of train.py.
        out: a new or empty folder; gets `model.safetensors`, `config.json`, `README.md`. `clipseg.load` takes it.
        licence: of the weights, as the hub names it ("mit", "cc-by-4.0", "other").

    Raises:
        ClipSegError: `run` is no run folder, or `out` holds something already.
    """
    if not (run / "provenance.json").is_file() or not (run / "checkpoints").is_dir():
        raise ClipSegError(f"{run}: not a run folder of train.py (no provenance.json or checkpoints/)")
    check_new_folder(out)
    model = load(run)
    origin = read_json(run / "provenance.json")
    metrics = {path.parent.name: read_json(path) for path in sorted((run / "eval").glob("*/metrics.json"))}
    try:
        data, steps = origin["config"]["data"], origin["config"]["training"]["steps"]
        # The root is a path of the machine that trained; the split and the annotations' name are what counts.
        trained_on = f"{Path(data['root']).name}, split {data['train_split']}, {steps:,} steps"
        experiment, seed, commit = (origin[key] for key in ("experiment", "seed", "commit"))
        tables = {split: format_table(figures) for split, figures in metrics.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ClipSegError(
            f"{run}: provenance.json or eval/*/metrics.json lacks something or was damaged ({one_line(error)}); restore them"
        ) from error
    card = fill_template(
        "run/model_card.md.j2",
        autoescape=False,
        licence=licence,
        experiment=experiment,
        parameters=sum(parameter.numel() for parameter in model.decoder.parameters()),
        model=model.config,
        trained_on=trained_on,
        data=Path(data["root"]).name,
        results=_results(metrics),
        seed=seed,
        commit=commit,
        tables=tables,
    )
    save_release(model, out, card=card, extra={"metrics": metrics, "experiment": experiment, "commit": commit})


def _results(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Split -> the figures that the card's metadata name, those that are finite."""
    shown = ("miou", "iou_fg", "iou_bin", "ap")
    found = {split: {name: figures[name] for name in shown if name in figures} for split, figures in metrics.items()}
    return {split: {n: v for n, v in figures.items() if math.isfinite(v)} for split, figures in found.items() if figures}


def push(folder: Path, name: str, *, overwrite: bool = False) -> str:
    """Upload a released folder to the Hugging Face hub, where `clipseg.load(name)` finds it.

    Args:
        folder: of `release`.
        name: "owner/model"; made where it is not there yet.
        overwrite: put it in the place of what the name holds already.

    Returns:
        its address.

    Raises:
        ClipSegError: the hub does not answer, refuses, or holds something by that name.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        with quiet_hub():
            address = str(api.create_repo(name, exist_ok=True))
            there = set(api.list_repo_files(name)) - {".gitattributes"}
            if not there or overwrite:
                api.upload_folder(repo_id=name, folder_path=folder, commit_message="Release of clipseg")
    except Exception as error:  # huggingface_hub and its HTTP client each raise their own
        raise ClipSegError(
            f"{name}: not uploaded to {api.endpoint} ({type(error).__name__}: {one_line(error)[:160]}); is it reachable, "
            "the name OWNER/MODEL, and a token with the right to write there (hf auth login)?"
        ) from error
    if there and not overwrite:
        raise ClipSegError(f"{name}: {address} holds {', '.join(sorted(there)[:5])}; choose another name, or add --overwrite")
    return address
