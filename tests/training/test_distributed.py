"""Several processes on the CPU, by gloo, are to do what one does with the whole batch.

They are started by torchrun, as a user's are; since that takes seconds, one start serves many tests (``together``).
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rsepm_edu import cli
from rsepm_edu.data.loading import EpochSampler, ShareSampler, epoch_loader
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.models.network import build_network
from rsepm_edu.models.synced_norm import CpuSyncBatchNorm, synchronise_batch_norm
from rsepm_edu.processes import World
from rsepm_edu.training.checkpoint import load_checkpoint
from rsepm_edu.training.config import TrainConfig, preset
from rsepm_edu.training.distributed import global_means
from rsepm_edu.training.loop import train
from rsepm_edu.training.step import Term
from tests.training.several_processes import scores_of

SCRIPT = Path(__file__).with_name("several_processes.py")
PATIENCE = 240  # seconds until what hangs has failed; a start takes five to twenty


def torchrun(*arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "torch.distributed.run", *map(str, arguments)]
    root = str(SCRIPT.parents[2])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*processes: "subprocess.Popen[str]") -> None:
    """Wait for all; one that fails or takes too long fails the test, and none is left behind."""
    try:
        for process in processes:
            output, _ = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0, output
    finally:
        for process in processes:
            process.terminate()  # passed on to the workers; nothing where it has ended
            process.communicate(timeout=60)


def of_rank(folder: Path, rank: int) -> Any:
    return json.loads((folder / f"rank{rank}.json").read_text())


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def weights(run: Path) -> dict[str, Tensor]:
    """Network, average and optimiser of a run, by name."""
    checkpoint = load_checkpoint(run / "last.pt")
    found = {f"network.{name}": value for name, value in checkpoint.network.items()}
    found |= {f"average.{name}": value for name, value in checkpoint.ema.items()}
    for index, state in checkpoint.optimizer["state"].items():
        found |= {f"optimizer.{index}.{name}": value for name, value in state.items() if value is not None}
    return found


def assert_same_run(
    run: Path, other: Path, tolerance: float = 0, of_weights: float = 0, of_momentum: float | None = None
) -> None:
    """Compare losses, weights, and the optimiser's momentum, whose tolerance is that of the weights by default."""
    for row, expected in zip(rows(run), rows(other), strict=True):
        assert row["losses"] == pytest.approx(expected["losses"], rel=tolerance, abs=tolerance)
        assert row["learning_rate"] == expected["learning_rate"]
    found, wanted = weights(run), weights(other)
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        allowed = of_momentum if name.startswith("optimizer.") and of_momentum is not None else of_weights
        torch.testing.assert_close(value, wanted[name], rtol=allowed, atol=allowed, msg=name)


# two processes, many jobs


@pytest.fixture(scope="module")
def configs(tiny: TrainConfig) -> dict[str, TrainConfig]:
    return {
        "cam": replace(tiny, method="cam", mixing="none", epochs=2),
        "puzzle": replace(tiny, method="puzzle", mixing="none", epochs=1),
        "rs": replace(tiny, method="rs", mixing="none", epochs=2),
        "parts": replace(tiny, method="rs", mixing="none", epochs=2, batch_size=8, accumulate=2, seed=1),
        "mixed": tiny,
    }


@pytest.fixture(scope="module")
def alone(configs: dict[str, TrainConfig], creatures: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The same by one process, and no dropout, which would draw other numbers."""
    out = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Dropout, "forward", lambda self, x: x)
        for name, config in configs.items():
            if name != "mixed":
                train(config, creatures, out / name / "run", device="cpu", progress=False)
        yield out


@pytest.fixture(scope="module")
def scored(creatures: Path, tiny: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint to score, of one process."""
    out = tmp_path_factory.mktemp("scored")
    train(replace(tiny, epochs=3), creatures, out, device="cpu", progress=False)
    return out / "last.pt"


def evaluations(checkpoint: Path, root: Path, out: Path) -> dict[str, list[str]]:
    common = ["evaluate", str(checkpoint), "--root", str(root), "--scales", "1.0", "--quiet", "--device", "cpu"]
    common += ["--per-class", "--boundary", "--count", "2"]
    return {
        name: [*common, "--out", str(out / name), "--cases", str(out / name / "cases"), *more]
        for name, more in {
            "seeds": ["--choose", "colour,stability,otsu"],
            "final": ["--final", "--split", "val"],  # 3 pictures: one process has two
        }.items()
    }


@pytest.fixture(scope="module")
def together(
    configs: dict[str, TrainConfig], creatures: Path, scored: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Two processes have done all jobs."""
    out = tmp_path_factory.mktemp("together")
    root = str(creatures)
    jobs: dict[str, dict[str, Any]] = {
        name: {"config": config.to_dict(), "root": root, "dropout": name == "mixed"} for name, config in configs.items()
    }
    rs = configs["rs"].to_dict()
    jobs["stopped"] = {"config": rs, "root": root, "signal": [2, "SIGTERM"]}
    jobs["nan"] = {"config": rs, "root": root, "nan": True}
    jobs["odd"] = {"config": rs | {"batch_size": 5}, "root": root}
    jobs["few"] = {"config": rs | {"batch_size": 16}, "root": root}
    jobs["nowhere"] = {"config": rs, "root": str(out / "nowhere")}
    for name, command in evaluations(scored, creatures, out / "tables").items():
        jobs[name] = {"command": command}
    jobs["python"] = {"score": str(scored), "root": root}
    # Last, for all processes have to be started again after it. checkpoint_minutes: a checkpoint after every step.
    killed = replace(configs["mixed"], checkpoint_minutes=1e-9).to_dict()
    jobs["killed"] = {"config": killed, "root": root, "dropout": True, "resume": "auto", "signal": [5, "SIGKILL"]}
    (out / "jobs.json").write_text(json.dumps(jobs))
    finish(torchrun("--standalone", "--nproc-per-node", 2, "--max-restarts", 3, SCRIPT, out / "jobs.json", out))
    return out


@pytest.mark.parametrize(
    ("name", "tolerance", "of_weights", "of_momentum"),
    [
        ("cam", 1e-5, 1e-5, 1e-5),
        # The gradient of Puzzle-CAM's absolute difference is a sign, 0 where the two maps are equal: after a few steps
        # a position was equal in one run and not, by rounding, in the other, and that step's gradient differed by just
        # its share, 4 / (4·5·16). So: one epoch.
        ("puzzle", 1e-5, 1e-5, 1e-5),
        # RS jumps (at the filter's thresholds, where another position becomes the maximum): one process alone, its
        # first weights changed by 1e-7 of themselves, is up to 1e-4 away after a few steps of RS, and further later.
        ("rs", 1e-4, 1e-3, 1e-3),
        ("parts", 1e-4, 1e-3, 1e-3),
    ],
)
def test_two_processes_learn_what_one_learns_from_the_whole_batch(
    together: Path, alone: Path, name: str, tolerance: float, of_weights: float, of_momentum: float
) -> None:
    assert_same_run(together / name / "run", alone / name / "run", tolerance, of_weights, of_momentum)


@pytest.mark.parametrize("name", ["cam", "puzzle", "rs", "parts", "mixed"])
def test_all_processes_have_the_same_weights(together: Path, name: str) -> None:
    first, second = (torch.load(together / name / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_mixing_is_finite_and_all_of_the_run_is_there(together: Path, configs: dict[str, TrainConfig]) -> None:
    assert [row["phase"] for row in rows(together / "mixed" / "run")] == ["cam", "rs", "rs+epm", "rs+epm"]
    assert all(torch.isfinite(torch.tensor(list(row["losses"].values()))).all() for row in rows(together / "mixed/run"))
    saved = json.loads((together / "mixed" / "run" / "config.json").read_text())
    assert TrainConfig.from_dict(saved) == configs["mixed"]


def test_rank_0_alone_writes_and_calls_back(together: Path) -> None:
    nothing: dict[str, list[Any]] = {"epochs": [], "told": []}
    # It alone says what the run will take, of a share on two processes and of four steps; the other one waits.
    assert [of_rank(together / "cam", rank) for rank in (0, 1)] == [{"epochs": [1, 2], "told": [[2, 4]]}, nothing]
    assert len(rows(together / "cam" / "run")) == 2
    assert len(list((together / "cam" / "run" / "tensorboard").iterdir())) == 1


def test_one_process_told_to_stop_stops_all_after_the_same_step_and_another_number_goes_on(
    together: Path, alone: Path, configs: dict[str, TrainConfig], creatures: Path
) -> None:
    """SIGTERM at the third of four steps, in the middle of an epoch; one process does the rest."""
    run = together / "stopped" / "run"
    assert [of_rank(together / "stopped", rank)["error"] for rank in (0, 1)] == ["KeyboardInterrupt"] * 2
    assert load_checkpoint(run / "last.pt").progress == (1, 1)
    train(configs["rs"], creatures, run, device="cpu", progress=False, resume=True)
    assert_same_run(run, alone / "rs" / "run", 1e-4, 1e-3)


def test_a_loss_that_is_not_finite_in_one_process_stops_all(together: Path) -> None:
    seen = [of_rank(together / "nan", rank) for rank in (0, 1)]
    assert seen[0] == seen[1]
    assert seen[0]["error"] == "NotFiniteError" and "'tags' is nan at step 0" in seen[0]["message"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("odd", "batch_size: expected a multiple of processes × accumulate = 2 × 1, got 5"),
        ("few", "expected at least one batch of 16 pictures in train for several processes, got 8"),
        ("nowhere", "nowhere: expected"),
    ],
)
def test_a_mistake_is_told_once(together: Path, name: str, message: str) -> None:
    first, second = (of_rank(together / name, rank) for rank in (0, 1))
    assert first["error"] == "UserError" and message in first["message"]
    assert second == {"error": "SystemExit", "message": "2"}


@pytest.mark.parametrize("name", ["seeds", "final"])
def test_evaluate_counts_every_picture_once(
    together: Path, scored: Path, creatures: Path, tmp_path: Path, name: str
) -> None:
    assert cli.main(evaluations(scored, creatures, tmp_path)[name]) == 0
    assert [of_rank(together / name, rank) for rank in (0, 1)] == [{"code": 0}] * 2
    folder = together / "tables" / name
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*") if path.is_file())
    assert {str(path) for path in files} > {"table.json", "per_class.json"} and len(files) > 6
    for path in files:
        assert (folder / path).read_bytes() == (tmp_path / name / path).read_bytes(), path


def test_functions_of_evaluation_share_pictures_too(together: Path, scored: Path, creatures: Path) -> None:
    """Every process gets what one alone finds: counts to the last pixel, sums of fractions but for rounding."""
    expected = scores_of(scored, creatures, World(torch.device("cpu")))
    for rank in (0, 1):
        found = of_rank(together / "python", rank)
        assert found.pop("looked_at") < expected["looked_at"]
        assert found.pop("curves") == {
            name: pytest.approx(curve, rel=1e-6, abs=1e-9) for name, curve in expected["curves"].items()
        }
        assert found == {name: value for name, value in expected.items() if name not in ("looked_at", "curves")}


def test_a_run_that_loses_a_worker_ends_as_if_nothing_had_happened(together: Path) -> None:
    """SIGKILL at the sixth of eight steps, in the middle of an epoch; torchrun starts all again."""
    assert of_rank(together / "killed", 0) == {"epochs": [3, 4], "told": [[2, 3]]}  # its second life
    assert_same_run(together / "killed" / "run", together / "mixed" / "run")


# two machines


def test_two_machines_are_two_torchruns_that_meet(
    together: Path, configs: dict[str, TrainConfig], creatures: Path, tmp_path: Path
) -> None:
    """With the command of docs/many_gpus.md, on one machine's loopback; a process on each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = preset("creatures-cpu").to_dict()
    changes = [f"{name}={value}" for name, value in configs["mixed"].to_dict().items() if value != start[name]]
    command = ["-m", "rsepm_edu", "train", "--preset", "creatures-cpu", "--root", creatures, "--out", tmp_path / "run"]
    command += [word for change in changes for word in ("--set", change)] + ["--quiet", "--device", "cpu"]
    meet = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--local-addr", "127.0.0.1"]
    finish(*(torchrun("--nnodes", 2, "--node-rank", node, "--nproc-per-node", 1, *meet, *command) for node in range(2)))
    assert_same_run(tmp_path / "run", together / "mixed" / "run")


# by hand, in one process


@pytest.mark.parametrize(("processes", "parts", "start"), [(2, 1, 0), (2, 2, 1), (3, 2, 0), (6, 1, 1)])
def test_shares_are_slices_of_the_parts_of_the_batches(processes: int, parts: int, start: int) -> None:
    order = [index for index, _ in EpochSampler(40, seed=3, epoch=1)]
    batches = [order[place : place + 12] for place in range(12 * start, 36, 12)]
    seen: list[list[list[int]]] = []
    for rank in range(processes):
        sampler = EpochSampler(40, seed=3, epoch=1, start=12 * start)
        share = ShareSampler(sampler, batch_size=12, parts=parts, rank=rank, processes=processes)
        indices = [index for index, _ in share]
        assert len(indices) == len(share)
        size = 12 // processes
        seen.append([indices[place : place + size] for place in range(0, len(indices), size)])
    piece = 12 // processes // parts
    for number, batch in enumerate(batches):
        rebuilt = [
            index
            for part in range(parts)
            for rank in range(processes)
            for index in seen[rank][number][part * piece : (part + 1) * piece]
        ]
        assert rebuilt == batch
    assert all(len(of_rank_) == len(batches) for of_rank_ in seen)


def test_a_picture_is_cropped_in_the_same_way_by_whoever_has_it() -> None:
    class Draws(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 9

        def __getitem__(self, index: int) -> tuple[int, float]:
            return index, float(torch.rand(()))

    def drawn(**share: int) -> dict[int, float]:
        loader = epoch_loader(Draws(), batch_size=4, seed=1, epoch=0, **share)
        return {int(i): float(x) for indices, values in loader for i, x in zip(indices, values, strict=True)}

    shares = [drawn(rank=rank, processes=2) for rank in (0, 1)]
    assert shares[0] | shares[1] == drawn() and not shares[0].keys() & shares[1].keys()


def test_global_means_are_those_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes with 6 and 0.5 counted pixels, one after the other; the second's mean is a sum over 1."""
    sums, counts, world = torch.tensor([3.0, 0.25]), torch.tensor([6.0, 0.5]), World(torch.device("cpu"), size=2)
    total = torch.tensor([[3.25, 6.0], [6.5, 2.0]], dtype=torch.float64)  # of each loss: S by count, the count
    monkeypatch.setattr(World, "sum", lambda self, values: total)
    found = []
    for total_, count in zip(sums, counts, strict=True):
        terms = {"cam": Term(total_ / count.clamp(min=1), count), "tags": Term(torch.tensor(3.0), torch.ones(()))}
        scaled, means = global_means(world, terms)
        assert means.tolist() == [0.5, 3.0]
        found.append(scaled)
    assert float(sum(scaled["cam"] for scaled in found)) / 2 == pytest.approx(0.5)
    assert [float(scaled["tags"]) for scaled in found] == [3.0, 3.0]


def test_alone_losses_are_not_changed() -> None:
    loss = torch.tensor(0.3, requires_grad=True)
    same, means = global_means(World(torch.device("cpu")), {"tags": Term(loss, torch.ones(()))})
    assert same["tags"] is loss and means.tolist() == [loss.item()]


def test_other_commands_want_one_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["demo"]) == 2
    expected = "rsepm-edu demo: processes: expected 1, got 8; torchrun works only with train and evaluate\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_synchronised_batch_norm_keeps_weights_names_and_what_evaluation_gives(device: str) -> None:
    network = build_network("creatures", ("cat", "dog"), decoder_channels=16, decoder_rates=(1, 2)).eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before, state = network(images), {name: value.clone() for name, value in network.state_dict().items()}
    synchronise_batch_norm(network, torch.device(device))
    kinds = {type(module) for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)}
    assert kinds == {CpuSyncBatchNorm if device == "cpu" else nn.SyncBatchNorm}
    torch.testing.assert_close(network(images).seg_logits, before.seg_logits, rtol=0, atol=0)
    assert state.keys() == network.state_dict().keys()


def test_timms_batch_norm_keeps_its_activation_on_a_gpu_and_is_refused_on_the_cpu() -> None:
    pytest.importorskip("timm")
    network = build_network("timm:efficientnet_b0", ("cat", "dog"), decoder_channels=16).eval()
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    before = network(images)
    with pytest.raises(UserError, match="expected plain batch norm for several processes on cpu, got BatchNormAct2d"):
        synchronise_batch_norm(network, torch.device("cpu"))
    synchronise_batch_norm(network, torch.device("cuda"))
    torch.testing.assert_close(network(images).cam, before.cam, rtol=0, atol=0)


def test_a_data_set_of_some_of_its_pictures(creatures: Path) -> None:
    whole = VocDataset(creatures, "train")
    part = whole.take(range(1, 8, 3))
    assert part.names == whole.names[1::3] and torch.equal(part.tags, whole.tags[1::3])
    assert torch.equal(part[2]["image"], whole[7]["image"]) and len(whole) == 8
    assert len(whole.take([])) == 0
