"""Which settings a run that goes on may have otherwise than those that it began with."""

from pathlib import Path

from audiostride.training.config import TrainConfig
from audiostride.training.settings import check_equal_settings
from audiostride.training.tasks import split_task

# Settings that may differ when a run is taken up again: they do not change what is learned, but for bad clips that are
# left out from then on, which a run that a vanished file has ended needs.
RESUMABLE_CHANGES = (
    "out", "workers", "memory_mib", "on_error", "device", "devices", "num_nodes", "strategy", "compile", "logger",
    "accumulate",
)  # fmt: skip


def check_same_settings(old: TrainConfig, new: TrainConfig, *, strict: bool = False) -> list[str]:
    """Raise, showing the differences, unless `new` continues the training that `old` began.

    More steps continue it too. Where data are moved to does not count, if the run knows a checksum of them.

    Args:
        old, new: The settings.
        strict: Whether nothing may change the numbers that come, since they stand beside those of other runs.

    Returns:
        Lines on what changes the numbers that come.
    """
    new = new.filled_from(old)
    before, after = old.to_dict(), new.to_dict()
    notes = []
    if new.init is not None:  # what is not given is that of the model that the run started from
        given = new.given_model_settings()
        after |= {name: before[name] for name in new.model_setting_names() if name not in given}
    if new.steps > old.steps:
        before["max_steps"] = new.max_steps
        rates = f"follow the {new.schedule} schedule over {new.steps} steps"
        notes.append(f"max_steps grows from {old.steps} to {new.steps}: from here on, learning rates {rates}")
    if new.accumulate != old.accumulate:
        sees = f"batch norm sees {new.batch_size // (new.n_processes * new.accumulate)} excerpts at a time"
        notes.append(f"accumulate is now {new.accumulate}, and was {old.accumulate}: from here on, {sees}")
    if (Path(new.out) / "data.json").is_file():
        for values in (before, after):
            values |= {"manifest": values["manifest"] and "", "background": values["background"] and ""}
            values["audio_root"] = None
            values["task"] = values["task"] and [split_task(entry)[::2] for entry in values["task"]]
    if strict:
        before |= {"max_steps": old.max_steps}
    changeable = [name for name in RESUMABLE_CHANGES if not (strict and name == "accumulate")]
    check_equal_settings(before, after, out=new.out, changeable=changeable)
    return notes
