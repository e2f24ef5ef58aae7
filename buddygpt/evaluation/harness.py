"""A model as lm-eval wants it: its prompts, ids and sums, and less work for them.

lm-eval 0.4's own HFLM reads every prompt whole and makes the logits of every position. Here what prompts begin with is
read once (`buddygpt.evaluation.prefixes`), and only positions that are judged pass the head. Shapes: B rows, T tokens,
P positions, V vocabulary.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

from buddygpt.evaluation.kept import Kept
from buddygpt.evaluation.prefixes import Group, group_by_prefix
from buddygpt.events import Caution, Emit, Progress
from buddygpt.model import BuddyGPTForCausalLM
from buddygpt.model.modeling import CACHE
from buddygpt.recipe.errors import BuddyError, is_out_of_memory

TOKENS = {"cpu": 2048, "accelerator": 16384}
"""Tokens of a batch, beginnings that are shared not counted, where no batch size is given."""
HELD = 8
"""Times as many tokens a batch's caches may hold, beginnings counted for each row."""
LOGIT_BYTES = 256 * 2**20
"""Most memory for logits in fp32."""

Request = tuple[list[int], list[int]]
"""Ids of a context and of its continuation."""


class Scorer(HFLM):
    """lm-eval's model over one that is loaded, with its answers kept on disk as they come.

    Args:
        model: any causal language model of transformers, on its device, in eval mode.
        tokenizer: its.
        context: tokens of its context; as its config says where left out.
        batch_size: rows of a batch; as many as `TOKENS` says where left out.
        kept: where answers are kept, so that an interrupted evaluation goes on.
        emit: told how far it is.

    Raises:
        BuddyError: the tokenizer has no end of text, which every empty context begins with.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        context: int | None,
        batch_size: int | None,
        kept: Kept,
        emit: Emit,
    ):
        if tokenizer.eos_token_id is None:
            raise BuddyError(
                "the tokenizer has no end-of-text token, which texts are judged after; name one (eos_token) in its "
                "tokenizer_config.json"
            )
        # Texts follow the end of a text, also in a model tuned on talks, whose own end is that of a turn.
        ends = getattr(model.config, "eos_token_id", None) if isinstance(model, BuddyGPTForCausalLM) else None
        start = ends[-1] if isinstance(ends, list) else None
        super().__init__(
            model, tokenizer=tokenizer, max_length=context, batch_size=batch_size or 8, prefix_token_id=start
        )
        self.rows, self.kept, self.emit = batch_size, kept, emit
        self.tokens = TOKENS["cpu" if self.device.type == "cpu" else "accelerator"]
        self.parts = True  # to be seen
        self.parts, self.shares = self._trusted()

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Sum of log-probabilities in nats of each continuation, and whether each of its tokens is the likeliest."""
        texts = [request.args for request in requests]
        missing = [pair for pair in dict.fromkeys(texts) if ("loglikelihood", pair) not in self.kept]
        work = _Work("multiple choice", len(missing), self.emit)
        for numbers, answers in self._scored(self.encoded(missing)):
            for number, answer in zip(numbers, answers, strict=True):
                self.kept.add(("loglikelihood", missing[number]), answer)
            work.advance(len(numbers))
        return [tuple(self.kept["loglikelihood", pair]) for pair in texts]  # type: ignore[misc]

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, override_bs: Any = None
    ) -> list[tuple[float, bool]]:
        """For windows of a long text, which lm-eval has encoded itself."""
        found: dict[int, tuple[float, bool]] = {}
        for numbers, answers in self._scored([(context, answer) for _, context, answer in requests]):
            found.update(zip(numbers, answers, strict=True))
        return [found[number] for number in range(len(requests))]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Sum of log-probabilities in nats of whole texts."""
        texts = [request.args for request in requests]
        missing = [r for r in requests if ("loglikelihood_rolling", r.args) not in self.kept]
        work = _Work("texts", len(missing), self.emit)
        for request in missing:
            (total,) = super().loglikelihood_rolling([request], disable_tqdm=True)
            self.kept.add(("loglikelihood_rolling", request.args), total)
            work.advance(1)
        return [self.kept["loglikelihood_rolling", text] for text in texts]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """What the model writes after each prompt, short of the first stop sequence."""
        asked = [(request.args[0], _frozen(request.args[1])) for request in requests]
        missing = {
            key: request
            for key, request in zip(asked, requests, strict=True)
            if ("generate_until", key) not in self.kept
        }
        order = sorted(missing, key=lambda key: (key[1], len(key[0])), reverse=True)
        work = _Work("answers", len(order), self.emit)
        at_once = self.batch_size_per_gpu
        for start in range(0, len(order), at_once):
            part = order[start : start + at_once]
            for key, text in zip(part, self._written([missing[key] for key in part]), strict=True):
                self.kept.add(("generate_until", key), text)
            work.advance(len(part))
        return [self.kept["generate_until", key] for key in asked]

    def _written(self, requests: list[Instance]) -> list[str]:
        """By lm-eval's own loop; where memory does not suffice, with half as many at once."""
        while True:
            try:
                with torch.no_grad():
                    return super().generate_until(requests, disable_tqdm=True)
            except RuntimeError as error:
                if not is_out_of_memory(error) or self.batch_size_per_gpu == 1:
                    raise
            half = self.batch_size_per_gpu // 2
            self.emit(
                Caution(f"memory does not suffice for {self.batch_size_per_gpu} answers at once; {half} from now on")
            )
            self.batch_size_per_gpu = half

    def encoded(self, pairs: Sequence[tuple[str, str]]) -> list[Request]:
        """Ids of contexts and continuations as lm-eval makes them, all texts at once.

        A continuation's ids are what the whole has beyond the context's: what the model sees, not the ids of the
        letter alone. Spaces at a context's end belong to the continuation.
        """
        split = [
            (context.rstrip(), context[len(context.rstrip()) :] + answer) if context else ("", answer)
            for context, answer in pairs
        ]
        texts = list(
            dict.fromkeys(text for context, answer in split for text in (context, context + answer) if context)
        )
        ids = dict(zip(texts, self.encode_all(texts), strict=True))
        found = []
        for context, answer in split:
            if context:
                found.append((ids[context], ids[context + answer][len(ids[context]) :]))
                continue
            answer_ids = self.tok_encode(answer, add_special_tokens=False)
            begins = answer_ids[:1] == [self.prefix_token_id]
            found.append((answer_ids[:1], answer_ids[1:]) if begins else ([self.prefix_token_id], answer_ids))
        return found

    def encode_all(self, texts: list[str]) -> list[list[int]]:
        """`tok_encode` of many, which the tokenizer's threads share."""
        if not texts:
            return []
        start = self.tokenizer.decode(self.prefix_token_id)
        if any(text.startswith(start) for text in texts):
            return [self.tok_encode(text) for text in texts]
        return self.tokenizer(texts)["input_ids"]

    def _trusted(self) -> tuple[bool, bool]:
        """Whether decoder and head, called apart, say what the whole does; and whether its cache goes on as it must.

        Seen on a few ids: some architectures scale or cap their logits, some keep a state that cannot be repeated.
        """
        decoder, head = self.model.base_model, self.model.get_output_embeddings()
        if head is None or decoder is self.model:
            return False, False
        ids_1T = torch.arange(1, 9, device=self.device)[None]
        near = 1e-3 if self.model.dtype == torch.float32 else 5e-2
        with torch.no_grad():
            whole_TV = self.model(input_ids=ids_1T, use_cache=False).logits[0, -4:].float()

            def same(hidden_TC: Tensor) -> bool:
                apart = (head(hidden_TC).float() - whole_TV).abs().max()
                return bool(apart <= near * whole_TV.abs().max().clamp(min=1))

            if not same(decoder(input_ids=ids_1T, use_cache=False).last_hidden_state[0, -4:]):
                return False, False
            begun = self._read([1, 2, 3, 4])
            if not _is_repeatable(begun):
                return True, False
            return True, same(self._hidden(ids_1T[:, 4:].expand(2, 4), _repeated(begun, 2))[1])

    def _scored(self, requests: Sequence[Request]) -> Iterator[tuple[list[int], list[tuple[float, bool]]]]:
        """Numbers of requests and their answers, batch by batch; whoever reads the same ids shares a row."""
        rows: dict[tuple[int, ...], list[int]] = {}
        for number, (context, answer) in enumerate(requests):
            rows.setdefault(tuple((context + answer)[-(self.max_length + 1) :][:-1]), []).append(number)
        sequences = list(rows)
        judged = [max(len(requests[number][1]) for number in numbers) for numbers in rows.values()]
        groups = group_by_prefix(sequences, judged) if self.shares else [Group(tuple(range(len(rows))), 0)]
        for group in groups:
            begun = self._read(sequences[group.members[0]][: group.prefix]) if group.prefix else None
            for part in self._batches(group, sequences):
                asked = [[requests[number][1] for number in rows[sequences[member]]] for member in part]
                answers = self._judged([sequences[member][group.prefix :] for member in part], asked, begun)
                yield [number for member in part for number in rows[sequences[member]]], answers

    def _batches(self, group: Group, sequences: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Members of a group, the longest first, as many as a batch holds."""
        order = sorted(group.members, key=lambda member: len(sequences[member]), reverse=True)
        start = 0
        while start < len(order):
            width = len(sequences[order[start]]) - group.prefix
            held = HELD * self.tokens // (group.prefix + width)
            rows = self.rows or max(1, min(self.tokens // width, held))
            yield order[start : start + rows]
            start += rows

    def _judged(self, rows: list[Sequence[int]], asked: list[list[list[int]]], begun: Any) -> list[tuple[float, bool]]:
        """Answers to what is asked of each row; where memory does not suffice, in two halves.

        Args:
            rows: ids after the beginning that is read already.
            asked: of each row its continuations, whose last token follows the row.
            begun: the cache of that beginning, which stays as it is.

        Raises:
            BuddyError: a log-probability is not a number.
        """
        try:
            with torch.no_grad():
                answers = self._sums(rows, asked, _repeated(begun, len(rows)))
        except RuntimeError as error:
            if not is_out_of_memory(error) or len(rows) == 1:
                raise
        else:
            if not all(math.isfinite(total) for total, _ in answers):
                raise BuddyError(
                    "the model's log-probabilities are no numbers: its weights or its precision are at fault; try "
                    "--dtype fp32"
                )
            return answers
        half = len(rows) // 2
        self.rows, self.tokens = self.rows and half, max(1, self.tokens // 2)
        self.emit(Caution(f"memory does not suffice for {len(rows)} rows at once; {half} from now on"))
        return [*self._judged(rows[:half], asked[:half], begun), *self._judged(rows[half:], asked[half:], begun)]

    def _sums(self, rows: list[Sequence[int]], asked: list[list[list[int]]], cache: Any) -> list[tuple[float, bool]]:
        """Each continuation's sum of log-probabilities, and whether it is the likeliest token by token.

        A position's logits are made once, whatever number of continuations is judged there, and chunk by chunk.
        """
        width = max(map(len, rows))
        ids_BT = torch.zeros(len(rows), width, dtype=torch.long)  # what fills a row up comes after all that is judged
        places: dict[int, int] = {}
        where, targets, owners = [], [], []
        owner = 0
        for number, (row, answers) in enumerate(zip(rows, asked, strict=True)):
            ids_BT[number, : len(row)] = torch.tensor(row)
            for answer in answers:
                first = number * width + len(row) - len(answer)
                where += [places.setdefault(first + step, len(places)) for step in range(len(answer))]
                targets += answer
                owners += [owner] * len(answer)
                owner += 1
        where_M, targets_M, owners_M = (torch.tensor(column, device=self.device) for column in (where, targets, owners))
        hidden_BTC = self._hidden(ids_BT.to(self.device), cache)
        hidden_PC = hidden_BTC.flatten(0, 1)[torch.tensor(list(places), device=self.device)]
        found_M, top_M = torch.empty(len(where), device=self.device), torch.empty_like(where_M)
        for chunk, logits_PV in self._logits(hidden_PC):
            here = (where_M >= chunk.start) & (where_M < chunk.stop)
            at = where_M[here] - chunk.start
            wanted = logits_PV[at, targets_M[here]]
            found_M[here] = wanted - logits_PV.logsumexp(-1)[at]
            top_M[here] = logits_PV.argmax(-1)[at]
        sums = torch.zeros(owner, dtype=torch.float64).index_add_(0, owners_M.cpu(), found_M.double().cpu())
        wrong = torch.zeros(owner, dtype=torch.long).index_add_(0, owners_M.cpu(), (top_M != targets_M).long().cpu())
        return list(zip(sums.tolist(), (wrong == 0).tolist(), strict=True))

    def _hidden(self, ids_BT: Tensor, cache: Any) -> Tensor:
        """(B, T, C): what the head turns into logits; or, of a model that cannot be taken apart, the logits."""
        if not self.parts:
            return self.model(input_ids=ids_BT, use_cache=False).logits
        told = {} if cache is None else {CACHE: cache}
        return self.model.base_model(input_ids=ids_BT, use_cache=cache is not None, **told).last_hidden_state

    def _logits(self, hidden_PC: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Parts of the positions with their logits in fp32."""
        head = self.model.get_output_embeddings() if self.parts else torch.nn.Identity()
        columns = self.model.config.get_text_config().vocab_size
        rows = max(1, LOGIT_BYTES // (4 * columns))
        for start in range(0, hidden_PC.shape[0], rows):
            part = slice(start, start + rows)
            yield part, head(hidden_PC[part]).float()

    def _read(self, ids: Sequence[int]) -> Any:
        """The cache of a beginning; None where the model keeps something of its own."""
        with torch.no_grad():
            ids_1T = torch.tensor([ids], device=self.device)
            return self.model.base_model(input_ids=ids_1T, use_cache=True).get(CACHE)


class _Work:
    """Tells how far a kind of request is."""

    def __init__(self, task: str, total: int, emit: Emit):
        self.task, self.total, self.emit, self.done = task, total, emit, 0

    def advance(self, more: int) -> None:
        self.done += more
        self.emit(Progress(self.task, self.done, self.total, "requests"))


def _is_repeatable(cache: Any) -> bool:
    """Whether all that a cache holds are keys and values, a row for a row."""
    plain = (DynamicLayer, DynamicSlidingWindowLayer)
    return isinstance(cache, Cache) and all(type(layer) in plain for layer in cache.layers)


def _repeated(cache: Any, rows: int) -> Any:
    """A copy of a cache of one row, with so many."""
    if cache is None:
        return None
    cache = copy.deepcopy(cache)
    cache.batch_repeat_interleave(rows)
    return cache


def _frozen(settings: dict[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True, ensure_ascii=False)
