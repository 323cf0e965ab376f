"""What an examination finds, how it is shown, and how one goes on where a library does not even import."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

Status = Literal["ok", "warning", "problem"]
ORDER: tuple[Status, ...] = ("ok", "warning", "problem")


@dataclass(frozen=True)
class Finding:
    """One topic: how it is, and what to change."""

    topic: str
    """What was looked at."""
    status: Status
    """``ok``; ``warning``, where something does less than it could; ``problem``, where something does not work."""
    text: str
    """What was found, in a line."""
    cure: str = ""
    """What to change, for what is not ok."""
    facts: dict[str, Any] = field(default_factory=dict)
    """The numbers behind it, for machines."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON knows it."""
        cure = {"cure": self.cure} if self.cure else {}
        return {"topic": self.topic, "status": self.status, "text": self.text, **cure, "facts": self.facts}


def overall_status(findings: Iterable[Finding]) -> Status:
    """The worst status."""
    return max((finding.status for finding in findings), key=ORDER.index, default="ok")


def format_finding(finding: Finding) -> str:
    """A finding as one line."""
    return f"{finding.topic}: {finding.text}"


def format_verdict(findings: Sequence[Finding]) -> str:
    """A line for each topic, the worst last, and what to change."""
    lines = ["", "verdict"]
    for status in ORDER:
        for finding in findings:
            if finding.status == status:
                lines.append(f"  {status:7}  {finding.topic}" + (f": {finding.cure}" if finding.cure else ""))
    counts = {status: sum(finding.status == status for finding in findings) for status in ORDER}
    told = [f"{count} {name}{'s' if count > 1 else ''}" for name, count in counts.items() if count and name != "ok"]
    lines.append(", ".join(told) + "; what to change stands beside them" if told else "all is well")
    return "\n".join(lines)


def reason_of(error: BaseException) -> str:
    """The kind and the first line of an error."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0]}"


def try_import(name: str) -> Any:
    """A module, or the error that importing it gives: a broken library fails in any way, with an OSError for one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module(name)
    except Exception as error:
        return error


def attempt(topic: str, look: Callable[[], Finding | Iterable[Finding]], *, cure: str) -> Iterator[Finding]:
    """The findings of a function, or a problem where it fails itself: the examination goes on in any case."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = look()
            yield from [found] if isinstance(found, Finding) else list(found)
    except Exception as error:
        yield Finding(topic, "problem", reason_of(error), cure)
