"""Published scores of images, as columns to compare a reward model with: CLIP score, LAION aesthetic, ImageReward,
PickScore, HPS v2 and VQA score.

A scorer loads a published checkpoint and gives each image a number for its prompt, the higher the better. Its rows are
judgements like any other; only the order of one scorer's numbers means something.
"""
