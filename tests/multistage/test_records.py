from pathlib import Path
from typing import Any

import pytest
import torch

from rsepm_edu.errors import UserError
from rsepm_edu.multistage.records import claim, fingerprint


def error_of(call: Any) -> str:
    with pytest.raises(UserError) as info:
        call()
    assert "\n" not in str(info.value)
    return str(info.value)


def test_a_folder_is_claimed_for_one_record(tmp_path: Path) -> None:
    claim(tmp_path / "a", {"x": {"y": (1, 3)}})  # nothing came of it
    folder = claim(tmp_path / "a", {"x": {"y": (1, 2)}})
    (folder / "picture.png").touch()
    assert claim(folder, {"x": {"y": [1, 2]}}) == folder
    assert "expected z.w = None as for the files there, got 1" in error_of(
        lambda: claim(folder, {"x": {"y": [1, 2]}, "z": {"w": 1}})
    )
    (folder / "stage.json").write_text("{")
    assert "expected the settings of a stage, got: " in error_of(lambda: claim(folder, {}))
    for other in ("[]", '"x"', '{"x": 3}'):
        (folder / "stage.json").write_text(other)
        assert "expected the settings of a stage, by stage, got other JSON" in error_of(lambda: claim(folder, {}))
    (folder / "stage.json").rename(folder / "other.txt")
    assert error_of(lambda: claim(folder, {})) == (
        f"{folder}: expected a new folder or one with a stage.json, got other files"
    )


def test_a_fingerprint_is_that_of_the_numbers() -> None:
    torch.manual_seed(0)
    first, second = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    assert fingerprint(first) != fingerprint(second)
    second.load_state_dict(first.state_dict())
    assert fingerprint(first) == fingerprint(second.to(memory_format=torch.channels_last))
