"""What each part of RecurSeed is worth on Creatures: as drawn, without SCG, without PAMR, without the average.

    python data_scripts/recurseed_parts.py --threads 1

Every run goes on from the lessons' creatures_cam, with the preset creatures-cpu and without mixing, for as many epochs
of RecurSeed as the preset has before it mixes. One part is taken out of what makes the *targets*; the network and its
scoring stay as they are. Scored: the CAM and the decoder, at one scale, at oracle θ, and the decoder's arg-max. Before
them stands the CAM that all begin with, and what SCG and PAMR make of it. A stopped script goes on.
"""

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from run_logs import merge_logs
from torch import Tensor
from train_checkpoints import warm_start

from rsepm_edu.course.networks import CREATURES_CAM, load_lesson_network
from rsepm_edu.data.creatures import ensure_creatures
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation import tables
from rsepm_edu.evaluation.scoring import ARGMAX, score_seeds
from rsepm_edu.evaluation.tables import Row
from rsepm_edu.models.network import SingleStageNetwork
from rsepm_edu.training.checkpoint import load_checkpoint, save_checkpoint
from rsepm_edu.training.config import TrainConfig, preset
from rsepm_edu.training.keeping import LAST
from rsepm_edu.training.loop import train
from rsepm_edu.training.seed_options import seed_options_of


def cam_as_it_is(features: Any, cam: Tensor, tags: Tensor, *, first_threshold: float) -> Tensor:
    """In the place of ``scg``: nothing is spread."""
    return cam


def maps_as_they_are(images: Tensor, maps: Tensor, *, channels: Tensor | None = None) -> Tensor:
    """In the place of ``pamr``: nothing follows the colours."""
    return maps


@dataclass(frozen=True)
class Part:
    """A run without one part: functions put in the place of the package's, and settings."""

    functions: Mapping[str, Callable[..., Tensor]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


PARTS: dict[str, Part] = {
    "as drawn": Part(),
    "without SCG": Part(functions={"rsepm_edu.methods.recurseed.scg": cam_as_it_is}),
    "without PAMR": Part(functions={"rsepm_edu.methods.recurseed.pamr": maps_as_they_are}),
    "without the average": Part(settings={"ema_decay": 0.0}),
}
HEADS = {"cam": "CAM", "decoder": "decoder", ARGMAX: "decoder, arg-max"}
BEFORE = {"cam": "CAM", "cam+scg+pamr": "CAM + SCG + PAMR"}


def main() -> int:
    """Run from the root of the repository."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", type=int, default=100, help="score so many of `train`, the first")
    parser.add_argument("--runs", type=Path, default=Path("runs/results/creatures_recurseed_parts"), help="checkpoints")
    parser.add_argument("--out", type=Path, default=Path("results/creatures_recurseed_parts"), help="the results")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads (default: all)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    start = preset("creatures-cpu", seed=options.seed, mixing="none", panel_every=0)
    config = replace(start, epochs=start.mix_start)
    try:
        root = ensure_creatures()
        rows = scored(load_lesson_network(CREATURES_CAM), replace(config, method="cam"), root, options.pictures, BEFORE)
        for name, part in PARTS.items():
            network = trained(replace(config, **part.settings), part, root, run_folder(options.runs, name))
            rows += scored(network, config, root, options.pictures, HEADS, f"RS {name}: ")
            print(tables.text(rows), flush=True)
        log = merge_logs(
            options.runs, [run_folder(options.runs, name) / "log.jsonl" for name in PARTS], options.runs / "all.jsonl"
        )
        words = ["python", f"data_scripts/{Path(__file__).name}", "--seed", str(options.seed)]
        words += ["--pictures", str(options.pictures), "--threads", str(options.threads)]
        tables.write_results(options.out, rows, command=shlex.join(words), config=asdict(config), log=log)
    except UserError as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        return 2
    return 0


def run_folder(runs: Path, name: str) -> Path:
    """Where the run of that name lies."""
    return runs / name.replace(" ", "_")


def trained(config: TrainConfig, part: Part, root: Path, folder: Path) -> SingleStageNetwork:
    """The averaged network after RecurSeed without that part."""
    if not (folder / LAST).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        save_checkpoint(folder / LAST, warm_start(config, CREATURES_CAM, config.rs_start).checkpoint())
    if load_checkpoint(folder / LAST).epoch < config.epochs:
        with without(part):
            train(config, root, folder, resume=True, progress=False)
    return load_checkpoint(folder / LAST).build_network()


@contextmanager
def without(part: Part) -> Iterator[None]:
    """A context in which the part's functions stand in the place of the package's."""
    with ExitStack() as stack:
        for place, function in part.functions.items():
            stack.enter_context(patch(place, function))
        yield


def scored(
    network: SingleStageNetwork,
    config: TrainConfig,
    root: Path,
    pictures: int,
    names: Mapping[str, str],
    prefix: str = "",
) -> list[Row]:
    """Rows of some maps of a network on the first pictures of `train`, at one scale."""
    dataset = VocDataset(root, "train", masks=True)
    dataset = dataset.take(range(min(pictures, len(dataset))))
    options = seed_options_of(config, scales=(1.0,), mirror=False)
    rows = score_seeds(network, dataset, options, progress=False).rows(seed=config.seed)
    return [replace(row, method=prefix + names[row.method]) for row in rows if row.method in names]


if __name__ == "__main__":
    raise SystemExit(main())
