import hashlib

import pandas as pd
import pytest

from audiostride.dataset.cards import read_card
from audiostride.dataset.splits import (
    assign_random_splits,
    describe_several_labels,
    describe_small_classes,
    hash_split,
    hold_out_valid,
)
from audiostride.errors import InputError

# The paper's sizes; for TUT with the one train clip that the paper's 7,829 are short of the archive.
FULL = {
    "tut-urban-2018": {"train": 7830, "test": 810},
    "dcase2018-birds": {"train": 32129, "test": 3561},
    "speech-commands": {"train": 84771, "valid": 10358, "test": 10700},
}


@pytest.mark.parametrize("name", FULL)
def test_a_complete_archive_is_split_to_the_sizes_of_the_paper(name: str) -> None:
    names = pd.Series([f"audio/{number}.wav" for number in range(sum(FULL[name].values()))])
    split = hash_split(names, seed=0, sizes=read_card(name)["splits"]["paper-like"])
    assert split.value_counts().to_dict() == FULL[name]


def test_the_test_names_are_those_of_the_lowest_hashes() -> None:
    names = pd.Series([f"{letter}.wav" for letter in "abcdefghij"])
    split = hash_split(names, seed=3, sizes={"train": 7, "valid": 1, "test": 2})
    ranked = sorted(names, key=lambda name: hashlib.sha256(f"3/{name}".encode()).hexdigest())
    assert sorted(names[split == "test"]) == sorted(ranked[:2])
    assert names[split == "valid"].tolist() == [ranked[2]]


def test_membership_does_not_depend_on_the_order() -> None:
    names = pd.Series([f"{number}.wav" for number in range(200)])
    sizes = {"train": 6, "valid": 1, "test": 3}
    shuffled = hash_split(names.sample(frac=1, random_state=0), seed=0, sizes=sizes).sort_index()
    assert shuffled.tolist() == hash_split(names, seed=0, sizes=sizes).tolist()


@pytest.mark.parametrize(("n_names", "counts"), [(0, (0, 0, 0)), (1, (1, 0, 0)), (2, (1, 0, 1)), (3, (1, 1, 1))])
def test_few_names_go_to_train_first(n_names: int, counts: tuple[int, int, int]) -> None:
    names = pd.Series([str(number) for number in range(n_names)], dtype=object)
    split = hash_split(names, seed=0, sizes={"train": 8, "valid": 1, "test": 1}).tolist()
    assert (split.count("train"), split.count("valid"), split.count("test")) == counts


def make_clips(labels: list[str], **columns: list[str]) -> pd.DataFrame:
    names = [f"/{number}.wav" for number in range(len(labels))]
    clips = pd.DataFrame({"path": names, "clip_name": names, "start_s": 0.0, "duration_s": 1.0, "label": labels})
    return clips.assign(line=range(2, len(labels) + 2), **{"group": None, "split": None, **columns})


def draw_plainly(clips: pd.DataFrame, *, seed: int, share: float, splits: list[str]) -> list[str]:
    """The first units by their hashes, whatever becomes of their classes: so were splits drawn at first."""
    grouped = clips["group"].notna().all()
    units = clips["group"] if grouped else clips["clip_name"] + "@0.0"
    found = pd.Series("train", index=clips.index)
    for _, members in units.groupby([0] * len(clips) if grouped else clips["label"]):
        names = sorted(members.unique(), key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
        count = max(1, round(share * len(names)))
        for place, split in enumerate(splits):
            found[members.index[members.isin(names[place * count : (place + 1) * count])]] = split
    return found.tolist()


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_splits_that_leave_every_class_its_training_clips_are_drawn_as_ever(seed: int, grouped: bool) -> None:
    labels = ["a"] * 40 + ["b"] * 31 + ["c"] * 3 + ["d"] * 12
    groups = [f"g{number % 20}" for number in range(len(labels))]
    clips = make_clips(labels, **({"group": groups} if grouped else {}))
    drawn = assign_random_splits(clips, seed=seed)
    plainly = draw_plainly(clips, seed=seed, share=0.1, splits=["test", "valid"])
    fine = set(labels) == {label for label, split in zip(labels, plainly, strict=True) if split == "train"}
    assert fine or grouped
    assert (drawn["split"].tolist() == plainly) == fine
    held, _ = hold_out_valid(clips.assign(split="train"), seed=seed, share=0.1)
    assert held["split"].tolist() == draw_plainly(clips, seed=seed, share=0.1, splits=["valid"])


@pytest.mark.parametrize("seed", range(5))
def test_every_class_keeps_a_training_clip_and_small_ones_all_of_theirs(seed: int) -> None:
    clips = make_clips(["common"] * 10 + ["usual"] * 10 + ["rare"] * 2 + ["single"] + ["three"] * 3)
    drawn = assign_random_splits(clips, seed=seed)
    counts = pd.crosstab(drawn["label"], drawn["split"])[["train", "valid", "test"]]
    assert counts.loc[["rare", "single"]].to_numpy().tolist() == [[2, 0, 0], [1, 0, 0]]
    assert counts.loc["three"].tolist() == [1, 1, 1]
    assert counts.loc["common"].tolist() == [8, 1, 1]
    assert describe_small_classes(drawn, ["label"]) == [
        "classes with all clips in train, too few to be in valid and test: rare, single"
    ]
    assert describe_small_classes(drawn[drawn["label"] == "three"], ["label"]) == []


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("held_out", [False, True])
def test_groups_that_hold_the_last_clips_of_a_class_stay_in_train(seed: int, held_out: bool) -> None:
    labels = ["a", "b"] * 12 + ["rare", "rare", "lone"]
    clips = make_clips(labels, group=[f"g{number % 12}" for number in range(24)] + ["g3", "g7", "g11"])
    drawn = (
        hold_out_valid(clips.assign(split="train"), seed=seed, share=0.3)[0]
        if held_out
        else assign_random_splits(clips, seed=seed, valid=0.3, test=0.3)
    )
    assert set(drawn.loc[drawn["split"] == "train", "label"]) == {"a", "b", "rare", "lone"}
    assert drawn.groupby("group")["split"].nunique().eq(1).all()
    for split in ("valid",) if held_out else ("valid", "test"):
        assert drawn.loc[drawn["split"] == split, "group"].nunique() == 4
    assert (drawn.loc[drawn["label"] == "lone", "split"] == "train").all()


def test_the_classes_of_every_task_keep_a_training_clip() -> None:
    clips = make_clips(["x", "y"] * 10).assign(pitch=[str(number // 2) for number in range(18)] + ["60", "61"])
    for seed in range(5):
        drawn = assign_random_splits(clips, seed=seed, labels=["label", "pitch"])
        assert set(drawn.loc[drawn["split"] == "train", "pitch"]) == set(clips["pitch"])
    assert any(
        set(drawn.loc[drawn["split"] == "train", "pitch"]) != set(clips["pitch"])
        for drawn in (assign_random_splits(clips, seed=seed) for seed in range(5))
    ), "which one task alone does not see to"


@pytest.mark.parametrize(
    ("labels", "groups", "message"),
    [
        (["a", "a", "b", "b"], None, "at least a class of three clips, .*, got none for valid and test; add clips"),
        (["a", "b"] * 4, ["g", "h"] * 4, "at least three groups, .*, got none for valid and test; .* another --group"),
        (["a", "a", "b", "b"], ["g", "h", "g", "h"], "at least three groups, .* got none for valid; add clips"),
    ],
)
def test_what_cannot_be_split_is_refused_without_advice_that_was_just_followed(
    labels: list[str], groups: list[str] | None, message: str
) -> None:
    clips = make_clips(labels, **({"group": groups} if groups else {}))
    with pytest.raises(InputError, match=message) as caught:
        assign_random_splits(clips, seed=0)
    assert "--random-split" not in str(caught.value)
    with pytest.raises(InputError, match="each is the only one of its class") as caught:
        hold_out_valid(make_clips(["a", "b"]).assign(split="train"), seed=0, share=0.1)
    assert "--hold-out" not in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "count"),
    [
        (["robin", "wren", "robin;wren", "wren|robin|crow"], 2),
        (["robin", "wren", "robin, wren"], 1),
        (["Crow, American", "Gull, Herring", "Robin, European"], 0),
        (["Crow, American", "Robin, American"], 2),
        (["a;", ";b", "c", "|"], 0),
        (["a;b"] * 3 + ["c"], 3),
    ],
)
def test_labels_that_look_like_several_are_counted(labels: list[str], count: int) -> None:
    lines = describe_several_labels(make_clips(labels), ["label"])
    assert len(lines) == (count > 0)
    if count:
        assert lines[0].startswith(f"{count} clip{'s' * (count > 1)} with several labels in one cell, such as ")


def test_clips_in_several_rows_are_counted_by_their_parts() -> None:
    clips = make_clips(["a", "b", "a", "b", "c", "c"]).assign(path=["/1", "/1", "/2", "/2", "/3", "/3"])
    assert describe_several_labels(clips.assign(start_s=[0.0, 1, 2, 3, 4, 5]), ["label"]) == []
    [line] = describe_several_labels(clips.assign(duration_s=float("nan")), ["label"])
    assert line.startswith("2 clips in several rows with different labels, such as a and b: each is learned as if")
