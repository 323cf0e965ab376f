"""Checking a manifest and its audio before anything is trained on it."""

from audiostride.data.checking.findings import KINDS, NOTES, Finding
from audiostride.data.checking.manifest_check import check_manifest
from audiostride.data.checking.result import CheckResult

__all__ = ["KINDS", "NOTES", "CheckResult", "Finding", "check_manifest"]
