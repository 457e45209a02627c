"""VP-Score: the reward model of VisionPrefer, its loss, its training data and how its accuracy is counted."""

CONFIG = "vpscore.json"  # by which a folder is known as a VP-Score's
