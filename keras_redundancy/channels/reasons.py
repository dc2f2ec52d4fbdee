"""Why channels have to stay: words for people, with a code for programs."""


class Reason(str):
    """Words that say why channels stay, and a short code for the same.

    It is a string, and can be used as one. The words may change from release
    to release and name layers; the code stays.

    Attributes:
        code: such as "model_output" or "over_channels".
    """

    code: str

    def __new__(cls, code: str, words: str):
        reason = super().__new__(cls, words)
        reason.code = code
        return reason

    def __getnewargs__(self):
        return self.code, str(self)

    def format(self, *args, **words) -> "Reason":
        return Reason(self.code, super().format(*args, **words))


def of_call(code: str, what: str) -> Reason:
    """A reason that begins with what is called, as "conv (Conv2D) ...".

    Args:
        code: that of the `Reason`.
        what: the words behind it, in which {name} and {kind} of the operation
            can stand as well.
    """
    return Reason(code, "{name} ({kind}) " + what)


# The code of reasons that are given as plain words, such as those of rules
# that users write.
OTHER = "other"


def code_of(reason: str | None) -> str | None:
    """The code of a reason; "other" where it is words alone, None for None."""
    return None if reason is None else getattr(reason, "code", OTHER)
