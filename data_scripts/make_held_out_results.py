"""Regenerate results/voc_sample_held_out: a DeepLab beside its teacher, on photographs that neither has seen.

    python data_scripts/make_held_out_results.py                                            on a GPU
    python data_scripts/make_held_out_results.py --data voc-sample --every 2 --set size=160 --set epochs=6 …  on a CPU

Every fifth photograph of trainaug (--every) is held out of all training. RS + EPM learns from the tags of the others,
its masks of these teach DeepLabv3+, and both are scored on what was held out, at the same scales, no tags given. The
masks there are VOC's own where there are any, else those made from SBD. A stopped run goes on.
"""

import argparse
import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch
from make_results import VOC_6, make_experiment
from photograph_lists import sample_names, sample_with_lists
from run_logs import merge_logs

from rsepm_edu.cli.options import parse_changes, shows_bars
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.device import resolve_device
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation import tables
from rsepm_edu.evaluation.choosing import spread
from rsepm_edu.evaluation.metrics import scores
from rsepm_edu.evaluation.scoring import segmentation_confusion
from rsepm_edu.evaluation.tables import Row
from rsepm_edu.multistage.config import MultistageConfig
from rsepm_edu.multistage.run import Multistage
from rsepm_edu.multistage.stored import score_stored_masks
from rsepm_edu.training.experiments import train_branch


def main() -> int:
    """Run from the root of the repository."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", choices=("voc-sample-gpu", "voc-sample"), default="voc-sample-gpu")
    parser.add_argument("--every", type=int, default=5, help="the last of so many photographs is held out (default: 5)")
    parser.add_argument(
        "--set", dest="changes", action="append", default=[], metavar="NAME=VALUE", help="of the teacher"
    )
    parser.add_argument("--scales", type=float, nargs="+", help="of all maps (default: those of the other tables)")
    parser.add_argument("--pictures", type=int, help="score so many of those held out (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of all trainings (default: 0)")
    parser.add_argument("--epochs", type=int, default=20, help="of the segmenter (default: 20)")
    parser.add_argument("--freeze", type=int, default=0, help="its backbone stages that keep their weights")
    parser.add_argument("--runs", type=Path, default=Path("runs/results/held_out"), help="checkpoints, stages' files")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where the table goes")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads (default: all)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    progress = shows_bars(options)
    try:
        root = without_held_out(options.runs / "VOC2012", options.every, options.pictures)
        experiment = replace(make_experiment(options.data, options.seed, progress=progress), root=root)
        config = replace(experiment.config, **parse_changes(options.changes, experiment.config.to_dict()))
        scales = tuple(options.scales or experiment.scales)
        experiment = replace(experiment, config=config, scales=scales)
        teacher = train_branch(experiment, options.runs, ("rs", "epm"), progress=progress)
        stages = MultistageConfig.of_run(
            teacher.config,
            VocDataset(root, "trainaug"),
            seed=options.seed,
            walk="none",
            scales=scales,
            final_scales=scales,
        )
        changes = {"epochs": options.epochs, "freeze_stages": options.freeze}
        stages = replace(stages, segmentation=replace(stages.segmentation, **changes))
        run = Multistage(teacher, root, options.runs / "stages", stages, name="RS + EPM decoder", progress=progress)
        network = teacher.build_network().to(resolve_device(None))
        held_out = VocDataset(root, "val", masks=True)
        confusion = segmentation_confusion(network, held_out, scales=scales, progress=progress)
        result = scores(confusion, held_out.classes, classes=VOC_6)
        rows = [Row.from_scores("RS + EPM, the teacher", result, threshold=None, oracle=False, seed=options.seed)]
        for crf in (False, True):
            predictions = run.predictions("val", crf=crf)
            result = score_stored_masks(held_out, predictions, classes=VOC_6, progress=progress)
            name = f"DeepLabv3+, its pupil{', + CRF' if crf else ''}"
            rows.append(Row.from_scores(name, result, threshold=None, oracle=False, seed=options.seed))
        write(rows, asdict(config) | stages.to_dict(), run.told, options)
        print(tables.text(rows), *run.told, sep="\n")
    except UserError as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        return 2
    return 0


def without_held_out(folder: Path, every: int, pictures: int | None) -> Path:
    """The sample, where split trainaug lacks the photographs held out; some or all of these are val."""
    names = sample_names("trainaug")
    held_out = names[every - 1 :: every]
    scored = [held_out[index] for index in spread(len(held_out), pictures or len(held_out))]
    return sample_with_lists(folder, val=scored, trainaug=[name for name in names if name not in set(held_out)])


def write(rows: list[Row], config: dict[str, object], told: list[str], options: argparse.Namespace) -> None:
    """Write results/voc_sample_held_out with one log of all trainings."""
    trainings = [path for name in ("cam", "rs", "rs+epm") if (path := options.runs / name / "log.jsonl").is_file()]
    trainings += sorted(options.runs.glob("stages/6_*/log.jsonl"))
    log = merge_logs(options.runs, trainings, options.runs / "log.jsonl")
    command = ["python", f"data_scripts/{Path(__file__).name}", "--data", options.data, "--every", str(options.every)]
    command += [word for change in options.changes for word in ("--set", change)]
    command += ["--scales", *map(str, options.scales)] if options.scales else []
    command += ["--pictures", str(options.pictures)] if options.pictures else []
    command += [
        "--seed",
        str(options.seed),
        "--epochs",
        str(options.epochs),
        "--freeze",
        str(options.freeze),
        "--threads",
        str(options.threads),
    ]
    settings = config | {"weights": Path(str(config["weights"])).name, "told": told}
    tables.write_results(
        options.results / "voc_sample_held_out", rows, command=shlex.join(command), config=settings, log=log
    )


if __name__ == "__main__":
    raise SystemExit(main())
