"""Questions and replies as the tokens that a LLaVA learns from."""

from typing import Any

import torch


def inputs(processor: Any, exchanges: list[tuple[str, ...]], patches: int = 0) -> dict[str, torch.Tensor]:
    """Questions with or without their image, as the processor writes them, and replies in pieces.

    Args:
        processor: the judge's.
        exchanges: a question, and pieces of the reply: in turn given, and learnt.
        patches: of the image; 0: there is none.
    """
    content = [{"type": "image"}, {"type": "text", "text": "@"}]
    form = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    form = form.replace("<image>", "<image>" * patches)
    tokenizer = processor.tokenizer
    rows = []
    for asked, *pieces in exchanges:
        pieces = [form.replace("@", asked) + pieces[0], *pieces[1:-1], pieces[-1] + tokenizer.eos_token]
        rows.append(tokenizer(pieces).input_ids)
    shape = (len(rows), max(sum(map(len, row)) for row in rows))
    ids, labels_ = torch.full(shape, tokenizer.pad_token_id), torch.full(shape, -100)
    mask = torch.zeros(shape, dtype=torch.long)
    for row, pieces in enumerate(rows):
        flat = torch.tensor([token for piece in pieces for token in piece])
        learnt = torch.tensor([index % 2 for index, piece in enumerate(pieces) for _ in piece])
        ids[row, : len(flat)], mask[row, : len(flat)] = flat, 1
        labels_[row, : len(flat)] = torch.where(learnt == 1, flat, -100)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels_}
