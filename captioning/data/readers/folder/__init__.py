"""Readers of a folder of captioned images, one for each form; forms.py recognises the form."""
