"""The project of the commands' tests: a small checkpoint and an adapter."""

from tests.commands.conftest import project as project
