"""One log of many runs, as a folder of results holds it."""

import json
from collections.abc import Iterable
from pathlib import Path

from rsepm_edu.files import atomic_write_text


def merge_logs(runs: Path, logs: Iterable[Path], target: Path) -> Path:
    """Write the lines of several logs into one, each with the run that it is from.

    Args:
        runs: folder that the runs are named from.
        logs: log.jsonl of runs below it.
        target: file to write.

    Returns:
        ``target``.
    """
    lines = [
        json.dumps({"run": path.parent.relative_to(runs).as_posix(), **json.loads(line)})
        for path in logs
        for line in path.read_text("utf-8").splitlines()
    ]
    atomic_write_text(target, "".join(f"{line}\n" for line in lines))
    return target
