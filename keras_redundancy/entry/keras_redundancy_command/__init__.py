"""The command `keras-redundancy`.

It is installed as a package of its own, beside `keras_redundancy`, which
imports Keras and with it a backend: that takes seconds, and `--help` needs
none of it.
"""

from keras_redundancy_command.parsing import parser, without_startup_lines


def main(arguments=None) -> int:
    """Run the command; returns its exit code: 2 if it cannot be done."""
    args = parser().parse_args(arguments)
    with without_startup_lines():
        from keras_redundancy import cli

    return cli.run(args)
