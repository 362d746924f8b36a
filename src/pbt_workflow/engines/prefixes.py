"""Shared prefixes of a batch of prompts: which stretches of tokens are computed once. Pure."""

from dataclasses import dataclass

# A stretch shorter than this costs more in overhead than it saves.
MIN_SHARED = 16
# A forward pass over fewer tokens than this takes about as long as one over as many.
MIN_TOKENS = 128


@dataclass(frozen=True)
class Segment:
    """A stretch of tokens that several prompts share, after its parent's stretches.

    `level` is the number of segments before it; `start` and `end` are token positions.
    """

    parent: int | None
    level: int
    row: int
    start: int
    end: int


@dataclass(frozen=True)
class PrefixPlan:
    """The segments to compute, parents first, and each prompt's last segment (None: no sharing).

    A prompt's own tokens are those from its last segment's end on; there is at least one.
    """

    segments: list[Segment]
    leaf: list[int | None]

    def shared_length(self, row: int) -> int:
        """How many of a prompt's tokens lie in shared segments."""
        index = self.leaf[row]
        return 0 if index is None else self.segments[index].end

    @classmethod
    def nothing(cls, rows: int) -> "PrefixPlan":
        """A plan that shares nothing."""
        return cls([], [None] * rows)

    def levels(self) -> list[list[int]]:
        """The segments by level: what a level needs is computed before it."""
        count = 1 + max((segment.level for segment in self.segments), default=-1)
        return [
            [index for index, segment in enumerate(self.segments) if segment.level == level]
            for level in range(count)
        ]

    def batches(self, level: list[int], size: int) -> list[list[int]]:
        """A level's segments in batches of at most `size`, of similar lengths to pad little."""
        batches: list[list[int]] = []
        longest = 0
        for index in sorted(level, key=lambda i: self._length(i), reverse=True):
            length = self._length(index)
            full = not batches or len(batches[-1]) == size
            if full or (length < 0.75 * longest and longest * len(batches[-1]) >= MIN_TOKENS):
                batches.append([])
                longest = length
            batches[-1].append(index)
        return batches

    def with_own_tokens(self, prompts: list[list[int]]) -> "PrefixPlan":
        """This plan with a segment more for each prompt, up to its last token."""
        segments, leaf = list(self.segments), list(self.leaf)
        for row, prompt in enumerate(prompts):
            start, end, parent = self.shared_length(row), len(prompt) - 1, self.leaf[row]
            if start < end:
                level = 0 if parent is None else self.segments[parent].level + 1
                leaf[row] = len(segments)
                segments.append(Segment(parent, level, row, start, end))
        return PrefixPlan(segments, leaf)

    def _length(self, index: int) -> int:
        return self.segments[index].end - self.segments[index].start

    def path(self, index: int | None) -> list[int]:
        """A segment and those it continues, the first one first; nothing for None."""
        path: list[int] = []
        while index is not None:
            path.append(index)
            index = self.segments[index].parent
        return path[::-1]

    def computed_tokens(self, prompts: list[list[int]]) -> int:
        """Prompt tokens this plan computes: each segment once and every prompt's own rest."""
        own = sum(len(prompt) - self.shared_length(row) for row, prompt in enumerate(prompts))
        return own + sum(segment.end - segment.start for segment in self.segments)


def batch_rows(prompts: list[list[int]], size: int) -> list[list[int]]:
    """Rows in batches of `size`, prompts with long common prefixes beside each other."""
    order = sorted(range(len(prompts)), key=lambda row: (prompts[row], row))
    return [order[start : start + size] for start in range(0, len(order), size)]


def plan_prefixes(prompts: list[list[int]], min_shared: int = MIN_SHARED) -> PrefixPlan:
    """The compressed trie of prompts, without stretches too short to be worth it.

    Args:
        prompts: token ids, each with at least one token.
        min_shared: the fewest tokens a segment may save in all.
    """
    order = sorted(range(len(prompts)), key=lambda row: prompts[row])
    segments: list[Segment] = []
    leaf: list[int | None] = [None] * len(prompts)
    stack: list[tuple[int, int, int, int | None]] = [(0, len(order), 0, None)]
    while stack:
        low, high, start, parent = stack.pop()
        rows = order[low:high]
        if len(rows) == 1:
            leaf[rows[0]] = parent
            continue
        # The last token is never shared: a model needs something to run on.
        end = min(_common_length(prompts[rows[0]], prompts[rows[-1]]), len(prompts[rows[0]]) - 1)
        if (end - start) * (len(rows) - 1) >= min_shared:
            level = 0 if parent is None else segments[parent].level + 1
            segments.append(Segment(parent, level, rows[0], start, end))
            start, parent = end, len(segments) - 1
        for first, last in _groups(prompts, order, low, high, end):
            # Prompts that end here have only their last token left; they come first.
            while first < last and len(prompts[order[first]]) == end + 1:
                leaf[order[first]] = parent
                first += 1
            if first < last:
                stack.append((first, last, start, parent))
    return PrefixPlan(segments, leaf)


def _common_length(first: list[int], second: list[int]) -> int:
    length = min(len(first), len(second))
    for position in range(length):
        if first[position] != second[position]:
            return position
    return length


def _groups(
    prompts: list[list[int]], order: list[int], low: int, high: int, position: int
) -> list[tuple[int, int]]:
    """Ranges of `order` whose prompts have the same token at `position`; all are longer."""
    groups: list[tuple[int, int]] = []
    first = low
    for index in range(low + 1, high + 1):
        if index == high or prompts[order[index]][position] != prompts[order[first]][position]:
            groups.append((first, index))
            first = index
    return groups
