"""How much better an image is than others of its prompt: rewards become advantages."""

from collections import deque
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

_EPSILON = 1e-6


class Advantages:
    """Rewards of each prompt's last images, and what a new reward is beside them (DDPO, arXiv 2305.13301, section 4.3).

    (r − mean) / (std + 1e-6), over the prompt's buffer, which the new rewards have joined; while that holds fewer than
    `min_count` rewards, over all rewards of the batch. With `scale_rewards` "batch" the mean is as before, and the
    deviation that of all these differences in the batch (arXiv 2508.08221 takes that of the batch's rewards, in which
    counts too how much prompts differ): images of a prompt that are all about as good then weigh little, where their
    own deviation would make as much of their noise as of any difference.

    Args:
        buffer_size: rewards kept of a prompt; 16 in DDPO, 32 where there are few prompts.
        min_count: see above; 16.
        scale_rewards: "group", each prompt by its own deviation, or "batch".
    """

    def __init__(
        self, buffer_size: int = 16, min_count: int = 16, scale_rewards: Literal["group", "batch"] = "group"
    ) -> None:
        if not 1 <= min_count <= buffer_size:
            raise ValueError(
                f"min_count is {min_count} and buffer_size {buffer_size}: a buffer never holds so many; "
                f"write a min_count of 1 to {buffer_size}"
            )
        self.buffer_size, self.min_count, self.scale_rewards = buffer_size, min_count, scale_rewards
        self._rewards: dict[str, deque[float]] = {}

    def of(self, prompts: Sequence[str], rewards: Sequence[float | None]) -> NDArray[np.float64]:
        """Take up the rewards of a batch. Returns their advantages, NaN where the reward is missing.

        Args:
            prompts: one for each image.
            rewards: None, or NaN, where there is none: such images change no mean and no deviation.
        """
        reward_N = np.array([np.nan if reward is None else reward for reward in rewards], dtype=np.float64)
        if len(prompts) != len(reward_N):
            raise ValueError(f"{len(prompts)} prompts and {len(reward_N)} rewards: give one reward for each prompt")
        known_N = np.isfinite(reward_N)
        advantage_N = np.full(len(reward_N), np.nan)
        if not known_N.any():
            return advantage_N
        for prompt, reward in zip(np.array(prompts, dtype=object)[known_N], reward_N[known_N], strict=True):
            self._rewards.setdefault(prompt, deque(maxlen=self.buffer_size)).append(float(reward))
        for index in np.flatnonzero(known_N).tolist():
            buffer = self._rewards[prompts[index]]
            among = np.array(buffer) if len(buffer) >= self.min_count else reward_N[known_N]
            spread = among.std() + _EPSILON if self.scale_rewards == "group" else 1.0
            advantage_N[index] = (reward_N[index] - among.mean()) / spread
        if self.scale_rewards == "batch":
            advantage_N /= advantage_N[known_N].std() + _EPSILON
        return advantage_N

    def state_dict(self) -> dict[str, Any]:
        """The buffers, for a checkpoint: without them a training that goes on would judge by other means."""
        return {"rewards": {prompt: list(buffer) for prompt, buffer in self._rewards.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the buffers of a checkpoint; of each, the last `buffer_size` rewards are kept."""
        kept = state["rewards"].items()
        self._rewards = {prompt: deque(rewards, maxlen=self.buffer_size) for prompt, rewards in kept}
