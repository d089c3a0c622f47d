"""What a job over many files did: it goes on past bad items and says at the end which those were."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tqdm import tqdm

from portrait4d.files.errors import UserError


@dataclass
class JobReport:
    """Counts of results `written` and `skipped` (they were there already), and messages of `failures`."""

    written: int = 0
    skipped: int = 0
    failures: list[str] = field(default_factory=list)

    def fail(self, error: UserError | str) -> None:
        """Note a bad item, and say so at once above the progress bar."""
        self.failures.append(str(error))
        tqdm.write(f"skipped: {error}")

    def add_item(self, written: int, problems: Sequence[UserError]) -> None:
        """Note an item: results `written` now and what was wrong; neither means that its results were there already."""
        self.written += written
        self.skipped += not (written or problems)
        for problem in problems:
            self.fail(problem)

    def merge(self, part: "JobReport") -> None:
        """Add the report of another worker, and say what went wrong there."""
        self.written += part.written
        self.skipped += part.skipped
        for failure in part.failures:
            self.fail(failure)

    def summary(self) -> str:
        """Return a few lines for the terminal."""
        lines = [f"{self.written} written"]
        if self.skipped:
            lines[0] += f", {self.skipped} were there already"
        if self.failures:
            lines.append(f"{len(self.failures)} could not be done:")
            lines += [f"  {failure}" for failure in self.failures]
        return "\n".join(lines)
