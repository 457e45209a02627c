"""How the built-in models were trained, from random weights, on pictures of training scenes alone."""

from typing import Literal

Name = Literal["blocks-vae", "blocks-sd", "blocks-sd-small", "blocks-llava", "blocks-clip", "blocks-blip"]
