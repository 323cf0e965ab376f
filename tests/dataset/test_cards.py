import re

import pytest

from audiostride.dataset.cards import card_folder, list_cards, read_card
from audiostride.errors import InputError

ARCHIVES = ("tut-urban-2018", "dcase2018-birds", "nsynth", "speech-commands")
# facts of the distributions: clips in all, files to download
CLIPS = {"tut-urban-2018": 8640, "dcase2018-birds": 35690, "nsynth": 305979, "speech-commands": 105829}
FILES = {"tut-urban-2018": 15, "dcase2018-birds": 6, "nsynth": 3, "speech-commands": 1}


def test_all_cards_are_listed_and_have_what_every_card_has() -> None:
    cards = list_cards()
    assert [card["name"] for card in cards] == sorted([*ARCHIVES, "ripples"])
    for card in cards:
        for field in ("title", "source", "licence", "citation", "sample_rate", "duration_s", "tasks"):
            assert card[field], (card["name"], field)
    with pytest.raises(InputError, match=r"must be one of dcase2018-birds, .*, got 'mnist'"):
        read_card("mnist")


@pytest.mark.parametrize("name", ARCHIVES)
def test_the_counts_of_a_card_add_up(name: str) -> None:
    card = read_card(name)
    for counts in card["splits"].values():
        assert list(counts) == ["train", "valid", "test"]
    assert sum(card["splits"]["official"].values()) == CLIPS[name]
    assert sum(card["splits"]["paper-like"].values()) == CLIPS[name]
    for task in card["tasks"].values():
        assert len(set(task["classes"])) == len(task["classes"]) >= 2


def test_the_sets_of_birds_add_up_to_the_official_split() -> None:
    card = read_card("dcase2018-birds")
    clips = {name: one["clips"] for name, one in card["sets"].items()}
    assert card["splits"]["official"]["test"] == clips.pop(card["test_set"])
    assert card["splits"]["official"]["train"] == sum(clips.values())
    assert {one["table"] for one in card["sets"].values()} <= {file["name"] for file in card["files"]}


@pytest.mark.parametrize("name", ARCHIVES)
def test_the_files_of_a_card_can_be_fetched_and_checked(name: str) -> None:
    files = read_card(name)["files"]
    assert len(files) == FILES[name]
    assert len({file["name"] for file in files}) == len({file["url"] for file in files}) == len(files)
    lengths = {"md5": 32, "sha256": 64}
    for file in files:
        assert file["url"].startswith("https://")
        assert file["size_gb"] > 0
        assert file["unpacked_gb"] >= 0
        assert "/" not in file["name"]
        if name == "dcase2018-birds":
            assert "checksum" not in file
        else:
            algorithm, _, digest = file["checksum"].partition(":")
            assert re.fullmatch(f"[0-9a-f]{{{lengths[algorithm]}}}", digest)
            assert file["url"].endswith("/" + file["name"])
    checksums = [file["checksum"] for file in files if "checksum" in file]
    assert len(set(checksums)) == len(checksums)


def test_the_archives_that_unpack_to_wav_have_folders_of_their_own() -> None:
    folders = [file["unpack_to"] for file in read_card("dcase2018-birds")["files"] if file["name"].endswith(".zip")]
    assert sorted(folders) == sorted(read_card("dcase2018-birds")["sets"])


def test_the_readme_of_the_cards_names_every_card_and_field() -> None:
    readme = (card_folder() / "README.md").read_text(encoding="utf-8")
    for card in list_cards():
        assert f"`{card['name']}`" in readme
        fields = set(card) | {field for file in card.get("files", []) for field in file}
        assert {field for field in fields if not re.search(rf"`\[*{field}\b", readme)} == set()
        for scheme, counts in card.get("splits", {}).items():
            assert " / ".join(f"{count:,}" for count in counts.values()) in readme, scheme
