"""What a training says while it runs: a line every hundred steps, at the terminal and in a file."""

from pathlib import Path


class Journal:
    """Prints and keeps the loss, the pace and the time that is left."""

    def __init__(self, folder: Path, steps: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "journal.tsv"
        self.steps = steps
        self.loss: float | None = None

    def note(self, step: int, loss: float, seconds: float) -> None:
        """Take up the loss of a step, and the seconds since the training began."""
        self.loss = loss if self.loss is None else 0.99 * self.loss + 0.01 * loss
        if step % 100 and step != self.steps:
            return
        left = seconds / step * (self.steps - step)
        print(f"step {step:,} of {self.steps:,}  loss {self.loss:.4f}  {left / 60:.0f} min left", flush=True)
        with self.path.open("a") as file:
            file.write(f"{step}\t{self.loss:.6f}\t{seconds:.1f}\n")
