"""What is wrong with an installation or a machine, and what to change: for when nothing else may be taken to work."""

from audiostride.commands.doctor.examination import examine
from audiostride.commands.doctor.findings import Finding, Status, format_finding, format_verdict, overall_status

__all__ = ["Finding", "Status", "examine", "format_finding", "format_verdict", "overall_status"]
