"""Preference datasets of other people, taken over from their published layouts as the folder of a finished run."""

from visionprefer.importing.folder import LAYOUTS, Imported, import_dataset

__all__ = ["LAYOUTS", "Imported", "import_dataset"]
