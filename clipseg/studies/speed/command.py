"""`clipseg benchmark [WHAT …]`: this package's speed and memory beside others', measured on this machine."""

import argparse
from pathlib import Path

CASES = ("prompt", "prompt_bf16", "prompts", "prompts_bf16", "training", "training_bf16", "evaluation", "metrics", "reader")
ROWS = (*CASES, "reading", "steps", "memory")
PACKAGES = ("torch", "transformers", "open_clip_torch", "numpy", "pillow", "scikit-image")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.description = """Measure this package side by side with transformers' CLIPSeg of the same weights (ViT-B/16 at
352×352 with random ones, unless --weights names others), with metrics that sort the pixels once a threshold, and with a
reader that uses scikit-image. Both sides must compute the same. They are run in turn; the ratio is the median over rounds,
its range stands behind it. "bound" is what our arithmetic alone takes at the speed of the fastest matrix product found on
this machine in the same rounds, and the ratio that would be. Memory is the most that a call has beyond what lay there.

  prompt      one prompt about one image          prompts     eight prompts about one image
  training    a training step of batch 8 by text  evaluation  five photos of 5.6 phrases, from JPEG to counts
  …_bf16      the same in bfloat16, beside our own float32
  metrics     counts of one sample                reader      JPEG, mask and crop of one sample
  reading     items a second that one core reads, for PhraseCut and PhraseCut+
  steps       of training as they are, by default on a GPU alone: images a second, waiting, share of the device's peak
  memory      of one image with 1, 8 and 64 prompts"""
    parser.epilog = "example: clipseg benchmark prompt prompts --rounds 7 --json speed.json"
    parser.add_argument("what", metavar="WHAT", nargs="*", help=f"{', '.join(ROWS)} (default: all, but steps on a CPU)")
    parser.add_argument("--rounds", type=_count, default=5, metavar="N", help="default: %(default)s")
    parser.add_argument("--device", default="cpu", metavar="D", help="cpu, cuda … (default: %(default)s)")
    parser.add_argument("--threads", type=_count, metavar="N", help="of the CPU (default: as many as torch takes)")
    parser.add_argument("--weights", metavar="W", help="as in `clipseg predict`")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Print the table, row by row as they are measured, and write it."""
    import tempfile
    from dataclasses import asdict

    import torch

    from clipseg.errors import ClipSegError
    from clipseg.files import write_json
    from clipseg.network.model import create_model
    from clipseg.network.weights import load
    from clipseg.run.distributed import choose_device
    from clipseg.run.provenance import package_version, provenance
    from clipseg.studies.speed.cases import Cases
    from clipseg.studies.speed.throughput import reading_rates, training_rates
    from clipseg.studies.speed.timing import compare, machine, markdown

    unknown = [name for name in arguments.what if name not in ROWS]
    if unknown:
        raise ClipSegError(f"{unknown[0]!r} cannot be measured; expected some of {', '.join(ROWS)}")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = choose_device(arguments.device)
    on_gpu = device.type == "cuda"
    what = arguments.what or [name for name in ROWS if name != "steps" or on_gpu]
    model = load(arguments.weights) if arguments.weights else create_model(pretrained=None)
    versions = {package: package_version(package) for package in PACKAGES}
    print(machine(device), ", ".join(f"{package} {version}" for package, version in versions.items()), sep="; ")
    print(f"median of {arguments.rounds} alternating rounds, and their range\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        cases = Cases(model.to(device), Path(folder))
        outcomes = []
        for name in (name for name in what if name in CASES):
            outcomes.append(compare(cases.makers[name](), rounds=arguments.rounds, device=device))
            lines = markdown(outcomes[-1:]).splitlines()
            print("\n".join(lines if len(outcomes) == 1 else lines[2:]), flush=True)
        reading, steps = reading_rates(cases.root) if "reading" in what else {}, {}
        for name, rate in reading.items():
            print(f"reading {name}: {rate:.0f} items a second and core", flush=True)
        number, size = (50, 64) if on_gpu else (3, 8)
        for name, rates in training_rates(cases.model, cases.root, steps=number, batch_size=size) if "steps" in what else ():
            steps[name] = rates
            values = (f"{key.replace('_', ' ')} {rate:.3g}" for key, rate in rates.items())
            print(f"training {name}, batches of {size}: {', '.join(values)}", flush=True)
        memory = cases.memory((1, 8, 64)) if "memory" in what else []
    if memory:
        print(_memory_table(memory))
    if arguments.json:
        figures = {"machine": machine(device), "versions": versions, "rows": list(map(asdict, outcomes))}
        figures |= {"reading": reading, "steps": steps, "memory": memory}
        origin = provenance({"what": what, "rounds": arguments.rounds, "weights": arguments.weights}, str(device))
        write_json(arguments.json, figures | {"provenance": origin})
    return 0


def _memory_table(rows: list[dict[str, float | None]]) -> str:
    lines = ["\n| prompts about one image | memory ours | memory transformers |", "| --- | --- | --- |"]
    for row in rows:
        ours, theirs = ("–" if row[key] is None else f"{row[key]:.0f} MiB" for key in ("ours_mib", "reference_mib"))
        lines.append(f"| {row['prompts']} | {ours} | {theirs} |")
    return "\n".join(lines)
