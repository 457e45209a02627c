"""What an image in the making can be expected to be worth: DPOK's value function, and how it learns.

Shapes: B samples, T steps of the denoising chain, N tokens, D dimensions; C channels, H rows, W columns of latents.
"""

from itertools import pairwise
from typing import Any

import torch

from visionprefer.align.policy import Total
from visionprefer.align.rollout import Rollout

# As in DPOK's released code.
_WIDTH = 256
_UPDATES = 5  # of a rollout
_BATCH = 256  # steps of images in each


class Value(torch.nn.Module):
    """V(x_t, prompt, t): three layers, whose values are scaled anew at each step of the chain, and a number.

    It begins as 0. The prompt is the mean of its tokens' states, which every pipeline has; the released code takes
    CLIP's summary.

    Args:
        latents: values of a sample's latents, C · H · W.
        text: dimensions of a token's state, D.
        steps: of the chain.
    """

    def __init__(self, latents: int, text: int, steps: int) -> None:
        super().__init__()
        sizes = [latents + text, _WIDTH, _WIDTH, _WIDTH]
        self.layers = torch.nn.ModuleList(torch.nn.Linear(*both) for both in pairwise(sizes))
        scales = [torch.nn.Embedding(steps, _WIDTH) for _ in self.layers]
        self.last = torch.nn.Linear(_WIDTH, 1)
        for scale in scales:
            torch.nn.init.uniform_(scale.weight)
        self.scales = torch.nn.ModuleList(scales)
        torch.nn.init.zeros_(self.last.weight)
        torch.nn.init.zeros_(self.last.bias)

    def forward(self, latents_BCHW: torch.Tensor, hidden_BND: torch.Tensor, turn_B: torch.Tensor) -> torch.Tensor:
        """The expected worth: [B]. `turn_B` counts the steps of the chain from 0."""
        values = torch.cat([latents_BCHW.float().flatten(1), hidden_BND.float().mean(dim=1)], dim=1)
        for layer, scale in zip(self.layers, self.scales, strict=True):
            values = torch.relu(layer(values) * scale(turn_B))
        worth_B: torch.Tensor = self.last(values).squeeze(1)
        return worth_B


class ValueFit:
    """A value function in training.

    DPOK lets it expect the reward itself. Here it expects the advantage, in which a prompt's other images are counted
    already, so that what is left to expect is what the latents tell.

    Args:
        value: on its device; the same on all workers.
        learning_rate: of AdamW.
        total: sums over the workers.
    """

    def __init__(self, value: Value, learning_rate: float, total: Total = lambda tensor: tensor) -> None:
        self.value, self.total = value, total
        self.optimizer = torch.optim.AdamW(value.parameters(), lr=learning_rate)

    def learn(self, rollout: Rollout, hidden_BND: torch.Tensor, worth_B: torch.Tensor, seed: int) -> float:
        """Learn (V − r)², the mean over steps of images drawn by lot (DPOK, arXiv 2305.16381).

        Args:
            rollout: of this worker.
            hidden_BND: states of the prompts' tokens.
            worth_B: what the images turned out to be worth; NaN where that is not known.
            seed: of the lot, another one on each worker.

        Returns:
            The mean squared error of all workers before the last update.
        """
        device, chance = self.value.last.weight.device, torch.Generator().manual_seed(seed)
        known, turns = worth_B.isfinite().nonzero().flatten(), rollout.chosen_T.nonzero().flatten()
        pairs = torch.cartesian_prod(known, turns).reshape(-1, 2)
        error = torch.zeros((), device=device)
        for _ in range(_UPDATES):
            row_B, turn_B = pairs[torch.randperm(len(pairs), generator=chance)[:_BATCH]].unbind(dim=1)
            latents_BCHW = rollout.latents_BTCHW[row_B, turn_B].to(device)
            found_B = self.value(latents_BCHW, hidden_BND[row_B].to(device), turn_B.to(device))
            squared = (found_B - worth_B[row_B].to(device).float()).square().sum()
            count = self.total(torch.tensor(float(len(row_B)), device=device))
            (squared / count.clamp(min=1)).backward()
            for weight in self.value.parameters():
                if weight.grad is not None:
                    weight.grad.copy_(self.total(weight.grad))
            if count > 0:  # else momentum alone would move the weights
                self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            error = self.total(squared.detach()) / count.clamp(min=1)
        return float(error)

    @torch.no_grad()
    def expected(
        self, rollout: Rollout, hidden_BND: torch.Tensor, row_B: torch.Tensor, turn_B: torch.Tensor
    ) -> torch.Tensor:
        """What some images of a rollout can be expected to be worth, each at one of its steps: [rows]."""
        device, latents = self.value.last.weight.device, rollout.latents_BTCHW[row_B, turn_B]
        expected_B: torch.Tensor = self.value(latents.to(device), hidden_BND[row_B].to(device), turn_B.to(device))
        return expected_B

    def state(self) -> dict[str, Any]:
        """Everything that going on needs."""
        return {"value": self.value.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.value.load_state_dict(state["value"])
        self.optimizer.load_state_dict(state["optimizer"])
