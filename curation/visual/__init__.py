"""Visual stage: what a few stills of a clip look like (borders, exposure, text, people, aesthetics)."""
