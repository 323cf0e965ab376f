"""A step of the loop and what a checkpoint of a run holds, on a model of one number."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from audiostride.distributed import Processes
from audiostride.training.launching import launch_fabric
from audiostride.training.loop import Learner, Training
from audiostride.training.recorder import StepBar
from audiostride.training.run_recorder import RunRecorder


class Number(nn.Module):
    """One weight; what it was at each projection."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.projected: list[float] = []

    def project_strides_(self) -> None:
        self.projected.append(self.weight.item())


class Slope(Training):
    """The loss of a part is its slope times the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.model, self.checked = Number(), list[int]()

    def begin_step(self, step: int, turn: int = 0) -> None:
        pass

    def forward(self, batch: dict[str, Tensor], turn: int = 0) -> Tensor:
        return batch["slope"] * (self.model.weight + 1)

    def make_optimizer(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.5)
        return optimizer, LambdaLR(optimizer, lambda step: 1.0)

    def check_step(self, step: int) -> None:
        self.checked.append(step)


def test_a_step_takes_the_mean_over_its_turns_then_projects_the_strides() -> None:
    training = Slope()
    learner = Learner(training, launch_fabric(device=torch.device("cpu")), turns=2)
    parts = iter([{"slope": torch.tensor(slope)} for slope in (1.0, 3.0, 4.0, 8.0)])
    assert learner.take_step(parts, 0).item() == 2.0  # the mean of 1 and 3, at a weight of 0
    assert training.model.weight.item() == -1.0
    assert learner.take_step(parts, 1).item() == 0.0
    assert training.model.projected == [-1.0, -4.0]  # after each step, not each part
    assert training.checked == [1, 2]
    assert training.model.weight.grad is None


def test_a_checkpoint_holds_the_best_so_far(tmp_path: Path) -> None:
    config, model = SimpleNamespace(out=str(tmp_path)), Number()
    training: Any = SimpleNamespace(config=config, model=model, processes=Processes())
    recorder, other = (RunRecorder(training, {}, []) for _ in range(2))
    recorder.best = {"step": 3, "valid_accuracy": 0.75}
    learner = Learner(Slope(), launch_fabric(device=torch.device("cpu")))
    learner.save(tmp_path / "last.ckpt", recorder, 5)
    assert learner.load(tmp_path / "last.ckpt", other) == 5
    assert other.best == {"step": 3, "valid_accuracy": 0.75}
    assert not (tmp_path / "last.partial.ckpt").exists()


@pytest.mark.parametrize("shown", [True, False])
def test_a_bar_whose_closing_is_interrupted_ends_its_line(
    shown: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bar = StepBar(SimpleNamespace(model=nn.Linear(1, 1), history=[]), 0, 3, shown=shown)  # type: ignore[arg-type]
    close, calls = bar._bar.close, list[int]()

    def fail_once() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("a worker is killed")
        close()

    monkeypatch.setattr(bar._bar, "close", fail_once)
    with pytest.raises(RuntimeError, match="a worker is killed"), bar:
        pass
    assert capsys.readouterr().err[-1:] == ("\n" if shown else "")
