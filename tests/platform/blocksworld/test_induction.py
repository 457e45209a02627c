"""A language model that has learnt nothing copies what followed a token before."""

import torch

from visionprefer.blocksworld.training import induction, judge


def test_what_followed_a_token_is_expected_to_follow_it_again():
    """Random tokens, each once, then the first half of them again, in another order of pairs."""
    torch.manual_seed(0)
    processor = judge._processor()
    model = judge._model(processor.tokenizer)
    kinds = torch.randperm(len(processor.tokenizer) - 300)[:20] + 300
    followers = torch.randperm(len(processor.tokenizer) - 300)[20:40] + 300
    told = torch.stack([kinds, followers], dim=1)
    asked = told[torch.randperm(20)]
    ids = torch.cat([told.flatten(), asked.flatten()])[None]
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, 40::2]  # at the first of each pair
    right = asked[:, 1]
    among = logits[:, followers].argmax(dim=1)
    assert (followers[among] == right).float().mean() > 0.7
    plain = judge.LlavaForConditionalGeneration(model.config)
    with torch.no_grad():
        logits = plain(input_ids=ids).logits[0, 40::2]
    assert (followers[logits[:, followers].argmax(dim=1)] == right).float().mean() < 0.3


def test_the_rotary_pairs_are_the_models_own():
    torch.manual_seed(0)
    model = judge._model(judge._processor().tokenizer)
    assert model.config.text_config.head_dim == induction.HEAD
    assert model.model.language_model.rotary_emb.inv_freq.shape == (induction.PAIRS,)
