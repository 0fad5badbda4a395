"""The head made whole for an engine: eyes, corneas, lids, mouth, tongue, neck, joints."""
