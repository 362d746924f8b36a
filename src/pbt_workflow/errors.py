"""The one exception for anything a user can mend: what is wrong, where, and what to do."""


class PbtError(Exception):
    """Bad input of any kind. The command line prints it and exits with status 1.

    Args:
        what: what is wrong, in one sentence.
        where: the file, line, column or config key that is meant.
        hint: what to do about it.
    """

    def __init__(self, what: str, *, where: str | object = "", hint: str = "") -> None:
        self.what, self.where, self.hint = what, str(where), hint
        super().__init__(str(self))

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.hint:
            lines.append(f"  hint:  {self.hint}")
        return "\n".join(lines)
