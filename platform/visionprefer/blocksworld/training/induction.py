"""A language model that begins with an induction head: what followed a token before, it expects to follow it again.

Two heads do that (arXiv 2209.11895): one in the first layer notes at each token which one was before it; one in the
second looks for the places that note the token at hand, and copies what stands there. A model as small as the judge
takes thousands of steps to find this, and then does it badly; begun with it, it learns in hundreds to look things up.

Dimensions of the residual stream: the first is constant, the last `HEAD` hold the notes, the others what a token is.
"""

from typing import Any

import torch

HEAD = 32  # dimensions of a head
PAIRS = HEAD // 2  # of dimensions that a rotary embedding turns together: i and i + PAIRS
CONSTANT = 1.5  # beside the tokens' own values, whose deviation is 1
SHARP = 3.0  # of the first head's query and key: it looks at the token before and hardly at others
FAST = 3  # pairs, those that turn fastest and so tell the token before from its neighbours
STEADY = 0.011  # radians a token; pairs that turn more slowly tell what a token is, wherever it stands
MATCH, COPY = 3.0, 2.0  # of the second head's query and key, and of what it copies
ANSWER = 0.02  # of the head that predicts, whose weights begin as the embedding's


@torch.no_grad()
def begin(model: Any) -> None:
    """Give a Llama, with `lm_head`, the weights that training begins with. Chance is torch's."""
    language, width = model.model.language_model, model.model.language_model.config.hidden_size
    tokens = language.embed_tokens.weight
    torch.nn.init.normal_(tokens)
    tokens[:, 0], tokens[:, -HEAD:] = CONSTANT, 0
    model.lm_head.weight.copy_(ANSWER * tokens)
    model.lm_head.weight[:, 0] = 0
    for layer in language.layers:
        attention, mlp = layer.self_attn, layer.mlp
        for into in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj):
            torch.nn.init.normal_(into.weight, std=width**-0.5)
        for out_of in (attention.o_proj, mlp.down_proj):
            torch.nn.init.zeros_(out_of.weight)
    turns = language.config.rope_parameters["rope_theta"] ** (-torch.arange(PAIRS) / PAIRS)  # radians a token
    slow = (turns < STEADY).nonzero().flatten()
    steady = torch.cat([slow, slow + PAIRS])
    notes = torch.arange(width - HEAD, width - HEAD + len(steady))
    what = _projection(len(steady), width)
    _note_the_token_before(language.layers[0].self_attn, turns, what, notes)
    _copy_what_followed(language.layers[1].self_attn, steady, what, notes)


def _note_the_token_before(attention: Any, turns: torch.Tensor, what: torch.Tensor, notes: torch.Tensor) -> None:
    """The first head: key and query are the same everywhere but for a turn, which is made good one token further on."""
    fast = (torch.arange(PAIRS) < FAST).float()
    for part, values in (
        (attention.q_proj, [fast * turns.cos(), -fast * turns.sin()]),
        (attention.k_proj, [fast, torch.zeros(PAIRS)]),
    ):
        part.weight[:HEAD] = 0
        part.weight[:HEAD, 0] = SHARP * torch.cat(values)
    attention.v_proj.weight[:HEAD] = 0
    attention.v_proj.weight[: len(notes)] = what
    attention.o_proj.weight[notes, torch.arange(len(notes))] = 1


def _copy_what_followed(attention: Any, steady: torch.Tensor, what: torch.Tensor, notes: torch.Tensor) -> None:
    """The first head: it asks what the token is, and finds where that is noted."""
    for part in (attention.q_proj, attention.k_proj):
        part.weight[:HEAD] = 0
    attention.q_proj.weight[steady] = MATCH * what
    attention.k_proj.weight[steady, notes] = MATCH
    copied = _projection(HEAD, attention.v_proj.weight.shape[1])
    attention.v_proj.weight[:HEAD] = copied
    attention.o_proj.weight[:, :HEAD] = COPY * copied.T


def _projection(rows: int, width: int) -> torch.Tensor:
    """Orthonormal rows over the dimensions that say what a token is: [rows, width]."""
    free = width - HEAD - 1
    found = torch.zeros(rows, width)
    found[:, 1 : 1 + free] = torch.nn.init.orthogonal_(torch.empty(rows, free))
    return found
