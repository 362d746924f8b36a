"""Templates of environments: `{name}` is a variable, `{{` and `}}` are braces."""

import re
from collections.abc import Mapping

from pbt_workflow.errors import PbtError

PART = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}|[{}]")
# A variable may itself use variables, as a theme's text uses the drawn names.
MAX_DEPTH = 3


def render(template: str, variables: Mapping[str, str], where: str = "") -> str:
    """A template with every variable filled in, also those that variables use themselves.

    Args:
        template: the text.
        variables: name -> text, which is a template too.
        where: names the template in errors.

    Raises:
        PbtError: an unknown variable, a brace that is neither doubled nor a variable's, or
            variables nested more than three deep (as when two use each other).
    """
    return _render(template, variables, where, MAX_DEPTH).strip()


def used(template: str) -> set[str]:
    """The variables that a template names itself."""
    return {match.group(1) for match in PART.finditer(template) if match.group(1)}


def _render(template: str, variables: Mapping[str, str], where: str, depth: int) -> str:
    def fill(match: re.Match) -> str:
        whole, name = match.group(0), match.group(1)
        if whole in ("{{", "}}"):
            return whole[0]
        if name is None:
            raise PbtError(
                f"a single {whole!r} in a template", where=where, hint="write it twice: {{ or }}"
            )
        if name not in variables:
            raise PbtError(
                f"unknown variable {{{name}}} in a template",
                where=where,
                hint=f"it has: {', '.join(sorted(variables))}",
            )
        if depth == 0:
            raise PbtError(f"variable {{{name}}} is nested more than {MAX_DEPTH} deep", where=where)
        return _render(variables[name], variables, where, depth - 1)

    return PART.sub(fill, template)
