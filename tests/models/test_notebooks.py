"""What notebooks show of models and settings."""

from audiostride import AudioClassifier, ClassifierConfig
from audiostride.training import TrainConfig


def test_a_classifier_shows_what_it_is() -> None:
    names = ["owl", "<b>rook"]
    config = ClassifierConfig(
        tasks={"species": names}, width=0.1, channels=[8, 16], strides=[[2, 2]] * 2, size="nominal"
    )
    shown = AudioClassifier(config)._repr_html_()
    assert "<th>species</th><td>2 classes: &lt;b&gt;rook, owl</td>" in shown
    assert "100 x 64, 50 x 32, 25 x 16" in shown
    assert "1 s at 16,000 Hz, 64 mel bands from 60 to 7800 Hz" in shown
    assert "<b>" not in shown


def test_settings_show_what_is_not_as_by_default() -> None:
    shown = TrainConfig(manifest="birds.csv", out="runs/birds", lr=0.5)._repr_html_()
    assert "<th>lr</th><td>0.5</td>" in shown
    assert "birds.csv" in shown
    assert "<th>seed</th>" not in shown
    assert " other settings<" in shown
    assert "<th>width</th><td>0.2</td>" in ClassifierConfig(tasks={"a": ["b", "c"]}, width=0.2)._repr_html_()
