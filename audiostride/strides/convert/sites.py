"""Where the maps of a network become smaller, and which of these places must do so alike."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from torch import nn

from audiostride.errors import InputError
from audiostride.strides.convert.example import Example
from audiostride.strides.convert.recording import Recording, record
from audiostride.strides.convert.steps import Place, Step

WHO = "convert_downsampling"


# Labels of the axes in front of a step and behind it.
Resolutions = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(eq=False)
class Group:
    """Places that lead from one resolution to one other, in branches that meet again: they share a layer."""

    steps: list[Step] = field(default_factory=list)
    """The first step of each place."""

    @property
    def strides(self) -> tuple[int, ...]:
        """Of the network as it was."""
        return self.steps[0].strides

    @property
    def places(self) -> list[Place]:
        """Where they are."""
        return [step.place for step in self.steps]

    @property
    def names(self) -> str:
        """The modules, for messages."""
        return ", ".join(repr(step.place.module) for step in self.steps)


@dataclass
class Sites:
    """What a network does where."""

    groups: list[Group]
    """In the order of the network."""
    covering: list[Step]
    """Pools over whole maps."""
    left: list[Step]
    """Steps that stay as they are, since the caller wants it."""
    recordings: list[Recording]
    """In evaluation and, where that does not reach all modules with weights, in training."""

    def of(self, module: str) -> Recording:
        """The recording in which a module was called."""
        return next(each for each in self.recordings if module in each.arguments)

    def in_front(self, step: Step) -> tuple[int, ...]:
        """Which resolution the maps in front of a step have."""
        return _resolutions(next(each for each in self.recordings if step in each.steps), step)[0]


def find_sites(
    model: nn.Module, example: Example, *, learn_first: bool, also: Sequence[str], leave: Sequence[str]
) -> Sites:
    """Follow an example through a model in evaluation mode.

    Raises:
        ForwardError: The forward pass fails.
        InputError: What cannot be converted.
    """
    known = {name for name, _ in model.named_modules()}
    for option, names in (("also", also), ("leave", leave)):
        for name in names:
            if name not in known:
                raise InputError(f"{WHO}: {option} must name modules of the network, got {name!r}; see named_modules()")
    recordings = [record(model, example, also=also)]
    if learn_first:
        also = [*also, first_identity_block(recordings[0])]
        recordings = [record(model, example, also=also)]
    if any(_has_weights(module) and name not in recordings[0].arguments for name, module in model.named_modules()):
        recordings += _record_in_training(model, example, also)  # such as auxiliary heads
    left: dict[Place, Step] = {}
    covering: dict[Place, Step] = {}
    groups: list[Group] = []
    for recording in recordings:
        found: dict[Resolutions, Group] = {}
        for step in recording.steps:
            if _is_within(step.place.module, leave):
                left[step.place] = step
            elif step.covers_all:
                covering[step.place] = step
            else:
                _check_step(step)
                key = _resolutions(recording, step)
                if set(key[0]) & set(key[1]):
                    raise InputError(
                        f"{WHO}: {step.place} is in a branch that meets another one whose maps keep their size; "
                        "name the block around them instead"
                    )
                found[key] = _join(groups, step, found.get(key))
        _check_meetings(recording, found, list(left.values()))
    for group in groups:
        if len({step.strides for step in group.steps}) > 1:
            raise InputError(
                f"{WHO}: branches that meet again must have the same strides, got "
                + ", ".join(f"{step.strides} in {step.place}" for step in group.steps)
                + "; name them in leave=[...]"
            )
    return Sites(groups, list(covering.values()), list(left.values()), recordings)


def _resolutions(recording: Recording, step: Step) -> Resolutions:
    """Labels in front of and behind a step, as they have become one with others."""
    find = recording.tracker.labels.find
    return tuple(map(find, step.before)), tuple(map(find, step.after))


def _join(groups: list[Group], step: Step, group: Group | None) -> Group:
    """The group of a step: that of its resolutions and that of its place, which become one where both are there."""
    home = next((each for each in groups if step.place in each.places), None)
    if home is None:
        if group is None:
            group = Group()
            groups.append(group)
        group.steps.append(step)
        return group
    if group is not None and group is not home:  # a module that is called in several places
        home.steps += group.steps
        group.steps = home.steps
        groups.remove(group)
    return home


def first_identity_block(recording: Recording) -> str:
    """The first module that adds its input to what it made of it, with no step within."""
    shrinking = [step.place.module for step in recording.steps]
    for name in recording.merges:
        if name and not any(_is_within(place, [name]) for place in shrinking):
            return name
    raise InputError(
        f"{WHO}: learn_first needs a residual block that keeps its resolution, and there is none; name the modules "
        "behind which strides are to be learned in also=[...]"
    )


def may_shrink(module: nn.Module) -> bool:
    """Whether a module has a setting for strides above 1."""
    stride = getattr(module, "stride", None)
    return isinstance(stride, int | tuple) and any(n > 1 for n in ((stride,) if isinstance(stride, int) else stride))


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None


def _record_in_training(model: nn.Module, example: Example, also: Collection[str]) -> list[Recording]:
    """What a model does in training, as far as it goes (a norm over one value, for one, is an error there)."""
    try:
        return [record(model.train(), example, also=also)]
    except Exception:
        return []  # what was not called stays as it is, and the table says so
    finally:
        model.eval()


def _is_within(name: str, parents: Sequence[str]) -> bool:
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


def _check_step(step: Step) -> None:
    if step.kind == "transposed convolution":
        raise InputError(
            f"{WHO}: {step.place} is a transposed convolution with strides {step.strides}: it makes maps larger by a "
            "fixed factor, while the maps that it has to fit would have learned sizes; take "
            "torch.nn.functional.interpolate to the size of the map that it meets and a convolution, convert the part "
            f"in front of it alone, or keep it with leave=[{step.place.module!r}]"
        )
    if any(d > 1 and s > 1 for d, s in zip(step.dilation, step.strides, strict=True)):
        raise InputError(
            f"{WHO}: {step.place} has strides {step.strides} with dilation {step.dilation}, for which no unstrided "
            f"layer with pooling stands; give it a dilation of 1, or keep it with leave=[{step.place.module!r}]"
        )


def _check_meetings(recording: Recording, found: dict[Resolutions, Group], left: Sequence[Step]) -> None:
    """Branches that meet must have become smaller in the same way."""
    behind: dict[int, Group] = {}
    for (_, after), group in found.items():
        for label in after:
            other = behind.setdefault(label, group)
            if other.steps is not group.steps:
                raise InputError(
                    f"{WHO}: {other.names} and {group.names} lead to maps that meet, from maps of different sizes, "
                    "which learned strides would not keep in step; name them in leave=[...]"
                )
    for step in left:
        for label in _resolutions(recording, step)[1] if step in recording.steps else ():
            if label in behind:
                raise InputError(
                    f"{WHO}: {step.place} is to be left as it is, but meets what comes from {behind[label].names}; "
                    "leave all of them, or none"
                )
