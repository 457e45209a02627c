"""What a dataset holds, as the papers' tables tell it: choices by aspect, scores, source models, win rates.

References: the dataset comparison, the source models and the annotator's preferences of VisionPrefer (arXiv
2404.15100); the share of prompts that give a pair, of AGFSync (arXiv 2403.13352).
"""

from visionprefer.statistics.counting import paid_for, read_statistics, spent, statistics, write_statistics
from visionprefer.statistics.figures import Statistics
from visionprefer.statistics.tables import Table, tables

__all__ = ["Statistics", "Table", "paid_for", "read_statistics", "spent", "statistics", "tables", "write_statistics"]
