"""What a plan is made of: groups of like jobs."""

from dataclasses import dataclass

INFERENCE_PASSES = 2.0  # FLOPs per parameter and token of a forward pass


@dataclass(frozen=True)
class Work:
    """Jobs of one kind and model; counts and tokens are of all of them together.

    Parts of a stage follow one another; jobs of one part can run side by side. `distinct_tokens`:
    prompt tokens after prefixes are shared within a job. `flops`: per parameter and token of the
    prompt. `limit`: the token limit of a reply. `bytes`: disk.
    """

    stage: str
    part: str
    model: str | None
    jobs: float
    sequences: float = 0.0
    prompt_tokens: float = 0.0
    distinct_tokens: float = 0.0
    new_tokens: float = 0.0
    limit: float = 0.0
    flops: float = INFERENCE_PASSES
    bytes: float = 0.0

    @property
    def key(self) -> str:
        """Stage and part, as in `Measures.prompt_factor`."""
        return f"{self.stage}/{self.part}"


# A row of a Parquet file: its columns, and its texts after compression. The demo's scored trees
# have 52 bytes per turn of 66 characters, as these give.
ROW_BYTES = 30.0
BYTES_PER_TOKEN = 0.35 * 4.2


def row_bytes(tokens: float) -> float:
    """Bytes of a row that holds a text of some tokens."""
    return ROW_BYTES + BYTES_PER_TOKEN * tokens
