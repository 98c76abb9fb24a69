"""HellaSwag: which ending continues a description."""
