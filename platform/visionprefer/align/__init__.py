"""The losses by which feedback improves an image model: Diffusion-DPO, and PPO on the denoising chain."""
