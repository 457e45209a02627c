"""The model that learns, and the reference that it is compared with: one UNet with and without LoRA, or two.

Shapes: B samples, P pairs; C channels, H rows, W columns of latents.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from visionprefer.align.denoising import noised
from visionprefer.align.dpo import denoising_error
from visionprefer.align.encoding import Condition

Total = Callable[[torch.Tensor], torch.Tensor]  # the sum of a tensor over all workers
_ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]


class Policy:
    """A pipeline's UNet in training.

    Args:
        pipeline: of Stable Diffusion, 1, 2 or XL; its UNet is changed in place.
        lora_rank: of the matrices beside those of the attention layers, which alone learn then, and without which the
            UNet is the reference. None: all weights learn, and the reference is a frozen copy.
        with_reference: whether there is to be such a copy.
    """

    def __init__(self, pipeline: Any, lora_rank: int | None = None, with_reference: bool = True) -> None:
        self.pipeline, self.lora_rank = pipeline, lora_rank
        self.unet = pipeline.unet.requires_grad_(lora_rank is None)
        self.learner: Any = self.unet  # as it is called: wrapped where workers share the gradients' mean
        copied = with_reference and not lora_rank
        self._reference = copy.deepcopy(self.unet).requires_grad_(False).eval() if copied else None
        if lora_rank:
            from peft import LoraConfig

            self.unet.add_adapter(
                LoraConfig(r=lora_rank, lora_alpha=lora_rank, init_lora_weights="gaussian", target_modules=_ATTENTION)
            )
        for parameter in self.learnt:
            parameter.data = parameter.data.float()  # steps of Adam are lost in half precision

    @property
    def device(self) -> torch.device:
        """Where the UNet is."""
        return self.unet.device

    @property
    def learnt(self) -> list[torch.nn.Parameter]:
        """The weights that learn."""
        return [parameter for parameter in self.unet.parameters() if parameter.requires_grad]

    def learnt_state(self) -> list[torch.Tensor]:
        """A copy of the weights that learn, on the CPU."""
        return [weight.detach().cpu().clone() for weight in self.learnt]

    def load_learnt(self, saved: Sequence[torch.Tensor]) -> None:
        """Put weights in the place of those that learn, in their order."""
        for weight, other in zip(self.learnt, saved, strict=True):
            weight.data.copy_(other)

    def predict(self, noisy_BCHW: torch.Tensor, timesteps_B: torch.Tensor, condition: Condition) -> torch.Tensor:
        """The policy's answer: [B, C, H, W]."""
        return self.learner(noisy_BCHW, timesteps_B, **condition.as_arguments()).sample

    @torch.no_grad()
    def reference(self, noisy_BCHW: torch.Tensor, timesteps_B: torch.Tensor, condition: Condition) -> torch.Tensor:
        """The answer of the model that training began with: [B, C, H, W]."""
        if self._reference is not None:
            return self._reference(noisy_BCHW, timesteps_B, **condition.as_arguments()).sample
        self.unet.disable_adapters()
        try:
            return self.unet(noisy_BCHW, timesteps_B, **condition.as_arguments()).sample
        finally:
            self.unet.enable_adapters()

    def errors(
        self,
        scheduler: Any,
        latents_2PCHW: torch.Tensor,
        condition: Condition,
        noise_PCHW: torch.Tensor,
        timesteps_P: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Denoising errors of policy and reference, all chosen images before all rejected ones: each [2P].

        Both images of a pair get the same timestep and the same noise (arXiv 2311.12908), in one forward pass.

        Args:
            scheduler: see `noised`.
            latents_2PCHW: chosen images, then rejected ones.
            condition: of the P prompts.
            noise_PCHW: standard normal.
            timesteps_P: int64.
        """
        noise, timesteps, both = torch.cat([noise_PCHW] * 2), timesteps_P.repeat(2), condition.repeated(2)
        noisy, target = noised(scheduler, latents_2PCHW, noise, timesteps)
        answers = (ask(noisy, timesteps, both) for ask in (self.predict, self.reference))
        policy_2P, reference_2P = (denoising_error(answer, target) for answer in answers)
        return policy_2P, reference_2P

    def without_sync(self, more_to_come: bool) -> AbstractContextManager[None]:
        """Within it workers keep their gradients to themselves, if there are more to be added up."""
        if more_to_come and self.learner is not self.unet:
            return self.learner.no_sync()
        return nullcontext()

    def save_pretrained(self, folder: Path) -> None:
        """Write what stock diffusers loads: LoRA weights for `load_lora_weights`, or the whole pipeline."""
        if not self.lora_rank:
            self.pipeline.save_pretrained(folder)
            return
        from diffusers.utils import convert_state_dict_to_diffusers
        from peft import get_peft_model_state_dict

        weights = convert_state_dict_to_diffusers(get_peft_model_state_dict(self.unet))
        self.pipeline.save_lora_weights(folder, unet_lora_layers=weights)
