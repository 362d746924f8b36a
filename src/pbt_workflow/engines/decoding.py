"""How the transformers engine decodes: keys and values kept, sampling by seed, when to stop."""

import torch
from transformers import DynamicCache, LogitsProcessor, StoppingCriteria
from transformers.cache_utils import DynamicLayer

from pbt_workflow.seeds import unit_interval

# Fewer rows than this are not worth the copying that leaving finished ones out costs.
MIN_ROWS = 8


class FewLeft(StoppingCriteria):
    """Stops a batch when half of its rows have finished, so that the rest can go on alone."""

    def __init__(self, ends: torch.Tensor, rows: int) -> None:
        self.ends = ends
        self.finished = torch.zeros(rows, dtype=torch.bool, device=ends.device)

    def __call__(self, input_ids: torch.Tensor, scores, **kwargs) -> torch.Tensor:
        self.finished |= torch.isin(input_ids[:, -1], self.ends)
        rows = len(self.finished)
        few = rows >= MIN_ROWS and int(self.finished.sum()) * 2 >= rows
        return torch.full_like(self.finished, few)


class GrowingLayer(DynamicLayer):
    """A cache layer that writes new tokens into space kept for them, where cat would copy all."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, length: int) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self._all_keys, self._all_values = keys, values
        self._show(length)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        start = self.keys.shape[2]
        end = start + key_states.shape[2]
        if end > self._all_keys.shape[2]:
            return super().update(key_states, value_states)
        self._all_keys[:, :, start:end] = key_states
        self._all_values[:, :, start:end] = value_states
        self._show(end)
        return self.keys, self.values

    def _show(self, length: int) -> None:
        self.keys = self._all_keys[:, :, :length]
        self.values = self._all_values[:, :, :length]

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        length = self.keys.shape[2]
        self._all_keys, self._all_values = self._all_keys[indices], self._all_values[indices]
        self._show(length)


class TokenStore:
    """Keys and values of tokens that were computed once, of which caches are put together."""

    def __init__(self, tokens: int) -> None:
        """Room for so many tokens."""
        self.tokens, self.used = tokens, 0
        self.places: dict[int, range] = {}
        self.layers: list[tuple[torch.Tensor, torch.Tensor]] = []

    def add(self, cache: DynamicCache, real: torch.Tensor, names: list[int]) -> None:
        """Keep the newest tokens of a cache under a name for each row.

        Args:
            cache: per layer keys and values of [rows, heads, tokens, head size].
            real: [rows, new tokens]; False for padding.
            names: one per row.
        """
        new = real.shape[1]
        for name, length in zip(names, real.sum(1).tolist(), strict=True):
            self.places[name] = range(self.used, self.used + length)
            self.used += length
        start = self.places[names[0]].start
        if not self.layers:
            self.layers = [
                tuple(x.new_empty(x.shape[1], self.tokens, x.shape[3]) for x in pair)
                for pair in ((layer.keys, layer.values) for layer in cache.layers)
            ]
        for layer, kept in zip(cache.layers, self.layers, strict=True):
            where = real.to(layer.keys.device)
            for source, target in zip((layer.keys, layer.values), kept, strict=True):
                target[:, start : self.used] = source[:, :, -new:].transpose(0, 1)[:, where]

    def cache(
        self, config, paths: list[list[int]], room: int
    ) -> tuple[DynamicCache | None, torch.Tensor | None]:
        """A cache with one row per path of names, side by side, padded on the left; its mask.

        `room` is for how many more tokens there is space behind them. None if paths are empty.
        """
        positions = [[at for name in path for at in self.places[name]] for path in paths]
        width = max(map(len, positions))
        if width == 0:
            return None, None
        # Padding is masked, but must be finite: nothing times NaN is NaN. So it repeats a token.
        index = torch.tensor([[0] * (width - len(row)) + row for row in positions])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in positions])
        cache = DynamicCache(config=config)
        cache.layers = []
        for pair in self.layers:
            grown = []
            for kept in pair:
                heads, _, size = kept.shape
                whole = kept.new_empty(len(paths), heads, width + room, size)
                picked = kept.index_select(1, index.view(-1).to(kept.device))
                whole[:, :, :width] = picked.view(heads, len(paths), width, size).transpose(0, 1)
                grown.append(whole)
            cache.layers.append(GrowingLayer(*grown, width))
        return cache, mask.to(self.layers[0][0].device)


class SeededSampling(LogitsProcessor):
    """Sampling by inverse transform, with one number per row and step from the row's seed.

    Leaves only the sampled token, so the result does not depend on the rest of the batch.
    """

    def __init__(self, seeds: list[int], prompt_length: int) -> None:
        self.seeds, self.prompt_length = seeds, prompt_length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        step = input_ids.shape[1] - self.prompt_length
        draws = torch.tensor(
            [unit_interval(seed, step) for seed in self.seeds],
            dtype=torch.float64,
            device=scores.device,
        )
        cumulative = scores.float().softmax(-1).double().cumsum(-1)
        tokens = torch.searchsorted(
            cumulative, (draws * cumulative[:, -1]).unsqueeze(1), right=True
        )
        tokens = tokens.clamp(max=scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, tokens, 0.0)
