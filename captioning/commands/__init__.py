"""Commands for people, beside the stages: caption image files, publish an adapter."""
