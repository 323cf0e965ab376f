"""``audiostride evaluate``."""

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from audiostride.wording import metric_of


def build_parser() -> ArgumentParser:
    """The options of ``audiostride evaluate``."""
    parser = ArgumentParser(description=run.__doc__)
    parser.add_argument("run", metavar="RUN", help="run folder")
    parser.add_argument("--split", choices=["train", "valid", "test"], default="test", help="which clips")
    parser.add_argument("--manifest", help="another manifest or store than the run's own, with the same label column")
    parser.add_argument("--on-error", choices=["stop", "skip"], help="what bad audio does (default: as in training)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where to compute")
    return parser


def run(arguments: Any) -> int:
    """Evaluate the best model of a run, also of one that was stopped."""
    # Not at the top: the help need not wait for torch and matplotlib.
    from audiostride.reporting.page import draw_confusions, report_run
    from audiostride.training.hardware import choose_device
    from audiostride.training.results import evaluate_run

    device = str(choose_device(arguments.device))
    metrics = evaluate_run(
        arguments.run, split=arguments.split, manifest=arguments.manifest, device=device, on_error=arguments.on_error
    )
    if arguments.split == "test" and not arguments.manifest:
        report_run(arguments.run)
    else:
        draw_confusions(Path(arguments.run))
    print_metrics(metrics)
    return 0


def print_metrics(metrics: dict[str, Any]) -> None:
    """Print the outcome of an evaluation: a few lines for one task, one for each of several and their mean."""
    if "tasks" in metrics:
        for task, found in metrics["tasks"].items():
            low, high = (100 * bound for bound in found["interval"])
            classic = found.get("baseline_classic")
            beside = f", SVM {100 * classic:.1f} %" if classic is not None else ""
            print(
                f"{task}, {metrics['split']}: {metric_of(found)} {100 * found['accuracy']:.1f} % "
                f"({low:.1f} to {high:.1f} %, {found['n_clips']} clips{beside})"
            )
        print(f"mean over {len(metrics['tasks'])} tasks: {metric_of(metrics)} {100 * metrics['accuracy']:.1f} %")
        return
    low, high = (100 * bound for bound in metrics["interval"])
    over = f", drawn over {metrics['interval_over']}" if "interval_over" in metrics else ""
    print(
        f"{metrics['task']}, {metrics['split']}: {metric_of(metrics)} {100 * metrics['accuracy']:.1f} % "
        f"(95 % interval {low:.1f} to {high:.1f} %{over}, {metrics['n_clips']} clips)"
    )
    several = metrics.get("metric") == "average_precision"
    if several:
        print("; ".join(_describe_macro(metrics, name) for name in ("roc_auc", "f1")))
    elif metrics.get("macro_recall") is not None:
        print(f"macro accuracy, the mean recall of the classes: {100 * metrics['macro_recall']:.1f} %")
    if metrics.get("baseline_majority") is not None:
        classic = metrics.get("baseline_classic")
        always = "always the shares of the classes" if several else "always the most frequent class"
        print(
            f"for comparison: {always} {100 * metrics['baseline_majority']:.1f} %"
            + (f", log-mel statistics + SVM {100 * classic:.1f} %" if classic is not None else "")
        )
        if classic is not None and classic >= metrics["accuracy"]:
            print("the classic baseline is as good or better: train longer (--max-steps), or look at the data first")


def _describe_macro(metrics: dict[str, Any], name: str) -> str:
    """A macro metric of several labels with its interval."""
    title = {"roc_auc": "macro ROC AUC", "f1": "macro F1 at 0.5"}[name]
    low, high = metrics.get(f"{name}_interval", (None, None))
    if metrics.get(name) is None:
        return f"{title} is not known"
    interval = f" ({100 * low:.1f} to {100 * high:.1f} %)" if low is not None and high is not None else ""
    return f"{title} {100 * metrics[name]:.1f} %{interval}"
