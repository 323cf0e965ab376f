"""``audiostride evaluate``."""

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from audiostride.errors import InputError
from audiostride.wording import advice_of, metric_of


def build_parser() -> ArgumentParser:
    """The options of ``audiostride evaluate``."""
    parser = ArgumentParser(description=run.__doc__)
    parser.add_argument("run", metavar="RUN", help="run folder")
    parser.add_argument("--split", choices=["train", "valid", "test"], default="test", help="which clips")
    parser.add_argument("--manifest", help="another manifest or store than the run's own, with the same label column")
    parser.add_argument(
        "--precision",
        type=float,
        help="make the thresholds of the model (predict --threshold auto) those of this precision on validation clips",
    )
    parser.add_argument(
        "--negatives", metavar="PATH", help="recordings without any of the classes: their false alarms, by threshold"
    )
    parser.add_argument("--hours", type=float, help="with --negatives: at most so much of them")
    parser.add_argument(
        "--alarms-per-hour",
        type=float,
        help="with --negatives: what each class may have; the thresholds of the model (predict --threshold auto) "
        "become those",
    )
    parser.add_argument("--hop", type=float, help="with --negatives: seconds from window to window, as for predict")
    parser.add_argument("--merge-gap", type=float, help="with --negatives: as for predict --events")
    parser.add_argument("--min-windows", type=int, help="with --negatives: as for predict --events")
    parser.add_argument("--on-error", choices=["stop", "skip"], help="what bad audio does (default: as in training)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto", help="where to compute")
    return parser


def run(arguments: Any) -> int:
    """Evaluate the best model of a run, also of one that was stopped."""
    # Not at the top: the help need not wait for torch and matplotlib.
    from audiostride.reporting.page import draw_confusions, report_run
    from audiostride.training.hardware import choose_device
    from audiostride.training.results import evaluate_run

    device = str(choose_device(arguments.device))
    if arguments.precision is not None:
        return _set_precision(arguments, device)
    if arguments.negatives is not None:
        return _measure_alarms(arguments, device)
    for name in ("hours", "alarms_per_hour", "hop", "merge_gap", "min_windows"):
        if getattr(arguments, name) is not None:
            raise InputError(f"evaluate: --{name.replace('_', '-')} must be given with --negatives, got it without")
    metrics = evaluate_run(
        arguments.run, split=arguments.split, manifest=arguments.manifest, device=device, on_error=arguments.on_error
    )
    if arguments.split == "test" and not arguments.manifest:
        report_run(arguments.run)
    else:
        draw_confusions(Path(arguments.run))
    print_metrics(metrics)
    return 0


def _set_precision(arguments: Any, device: str) -> int:
    # As in `run`.
    from audiostride.training.calibration import set_precision

    if arguments.negatives is not None:
        raise InputError("evaluate: either --precision or --negatives must be given, got both")
    chosen = set_precision(arguments.run, arguments.precision, device=device)
    print(f"thresholds of the model at a precision of {arguments.precision:g} on its validation clips:")
    for task, classes in chosen.items():
        for name, value in classes.items():
            at = "none is so precise: from 1 on" if value is None else f"from {value:.4f} on"
            print(f"  {f'{task}: ' if len(chosen) > 1 else ''}{name}: {at}")
    print("predict --threshold auto takes them")
    return 0


def _measure_alarms(arguments: Any, device: str) -> int:
    # As in `run`.
    from audiostride.reporting.page import report_run
    from audiostride.training.alarms import measure_alarms

    found = measure_alarms(
        arguments.run,
        arguments.negatives,
        hours=arguments.hours,
        hop_s=arguments.hop,
        merge_gap_s=arguments.merge_gap,
        min_windows=arguments.min_windows,
        alarms_per_hour=arguments.alarms_per_hour,
        device=device,
    )
    report_run(arguments.run)
    wanted, hours = found["alarms_per_hour"], found["hours"]
    alarms = "alarm" if wanted == 1 else "alarms"
    print(f"{found['recordings']} recordings, {hours:.3g} h; at most {wanted:g} false {alarms} per hour of each class:")
    for task, classes in found["tasks"].items():
        for name, each in classes.items():
            at = "no threshold" if each["threshold"] is None else f"from {each['threshold']:.4f} on"
            recall = "" if each["recall"] is None else f", which finds {100 * each['recall']:.0f} % of its test clips"
            print(f"  {f'{task}: ' if len(found['tasks']) > 1 else ''}{name}: {at}{recall}")
    if wanted * hours < 3:
        print(
            f"in {hours:.3g} h no alarm at all means up to {found['interval_of_none'][1]:.3g} per hour (95 %); more "
            "recordings say more"
        )
    if arguments.alarms_per_hour is not None:
        print("these are the thresholds of the model now: predict --threshold auto")
    print(f"table: {Path(arguments.run) / 'alarms.csv'}")
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
    if metrics.get("groups"):
        lowest = f"{100 * metrics['lowest_group']:.1f} %"
        print(f"{metrics['groups']} groups, of which the lowest has {lowest}: per_group.csv")
    if metrics.get("baseline_majority") is not None:
        classic = metrics.get("baseline_classic")
        always = "always the shares of the classes" if several else "always the most frequent class"
        print(
            f"for comparison: {always} {100 * metrics['baseline_majority']:.1f} %"
            + (f", support vector machine on log-mel statistics {100 * classic:.1f} %" if classic is not None else "")
        )
        if classic is not None and 1 > metrics["accuracy"] <= classic:
            print(f"the support vector machine is as good or better: {advice_of(metrics, ' (--max-steps)')}")


def _describe_macro(metrics: dict[str, Any], name: str) -> str:
    """A macro metric of several labels with its interval."""
    title = {"roc_auc": "macro ROC AUC", "f1": "macro F1 at 0.5"}[name]
    low, high = metrics.get(f"{name}_interval", (None, None))
    if metrics.get(name) is None:
        return f"{title} is not known"
    interval = f" ({100 * low:.1f} to {100 * high:.1f} %)" if low is not None and high is not None else ""
    return f"{title} {100 * metrics[name]:.1f} %{interval}"
