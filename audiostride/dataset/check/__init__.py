"""Checking a manifest and its audio before anything is trained on it."""

from audiostride.dataset.check.findings import KINDS, NOTES, CheckResult, Finding
from audiostride.dataset.check.manifest_check import check_manifest

__all__ = ["KINDS", "NOTES", "CheckResult", "Finding", "check_manifest"]
