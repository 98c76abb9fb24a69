"""StereoSet: which of a stereotype, an anti-stereotype and an unrelated sentence is likelier."""
