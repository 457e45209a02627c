"""VP-Score: the reward model of VisionPrefer, its loss, its training data and how its accuracy is counted."""
