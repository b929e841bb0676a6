"""The Trainer under all trainings."""
