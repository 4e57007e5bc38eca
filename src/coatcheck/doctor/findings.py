"""What a check finds, and what an examination comes to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from coatcheck.log_lines import printable


class Status(Enum):
    """How a check came out, from harmless to grave."""

    OK = "ok"
    UNKNOWN = "unknown"
    """It could not be seen, for want of permission or because this kind of server does not show it."""
    NOTE = "note"
    """Right for many deployments; somebody should have chosen it."""
    WARNING = "warning"
    PROBLEM = "problem"
    """Sessions are lost, exposed or refused, now or as soon as something ordinary happens."""

    @property
    def gravity(self) -> int:
        """0 for harmless, more for worse."""
        return list(Status).index(self)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. Others may have written what a store says, so its text is made harmless for terminals.

    Attributes:
        check: the name of the check, one word.
        status: how it came out.
        finding: what was found.
        advice: what that means for sessions and what to do. Empty if there is nothing to do.
    """

    check: str
    status: Status
    finding: str
    advice: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "finding", printable(self.finding))
        object.__setattr__(self, "advice", printable(self.advice))


@dataclass(frozen=True, slots=True)
class Report:
    """What an examination comes to.

    Attributes:
        store: where the store is, without user and password.
        findings: one for each check that was made, in the order in which they read well.
    """

    store: str
    findings: tuple[Finding, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "store", printable(self.store))

    @property
    def worst(self) -> Status:
        """The status of the gravest finding."""
        return worst(self.findings)


def worst(findings: Iterable[Finding]) -> Status:
    """Give the status of the gravest finding."""
    return max((finding.status for finding in findings), key=lambda status: status.gravity, default=Status.OK)
