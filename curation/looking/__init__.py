"""Lookers: what looks at the stills of clips, measured by hand or by a learned model named in the recipe."""
