"""Warnings of `prune` where a plan removes no unit."""

from keras_redundancy._shared.warn import warn
from keras_redundancy.channels.tracing import MODEL_OUTPUT
from keras_redundancy.planning.levels import levels_of
from keras_redundancy.planning.request import width_of
from keras_redundancy.planning.selection import share_left


def warn_if_nothing_can_go(found, names_layers):
    """Warn of a plan without units to remove, unless skip= leaves none.

    Args:
        found: the plan.
        names_layers: whether the caller has named the layers to prune.
    """
    chosen = [
        d.reason if names_layers else d.space.frozen for d in found.decisions
    ]
    if not all(chosen):
        return
    spaces = [d.space for d in found.decisions if d.space.frozen]
    words = [d.reason for d in found.decisions if not d.space.frozen][:1]
    # That of the outputs is so in all models.
    hidden = [space for space in spaces if space.frozen != MODEL_OUTPUT]
    for space in (hidden or spaces)[:1]:
        words.append(f"the units of {space.name} stay, since {space.frozen}")
    because = "; ".join(words) or "no layer of it has units"
    warn(
        f"Nothing can go from {found.graph.model.name!r}: {because}. "
        "keras_redundancy.plan(model, tau=0.9).explain() lists what is frozen.",
    )


def warn_if_rounded_up(found, chosen, options):
    """Warn where no unit goes because of `round_to` or `min_units`.

    Args:
        found: the plan, without units to remove.
        chosen: ratio, layers and skip, as for `plan`.
        options: the other options of `plan`.
    """
    spaces = [decision.space for decision in found.decisions]
    levels, _ = levels_of(found.graph.model, spaces, "ratio", *chosen)
    sizes = [
        (share_left(level, decision.space.size), decision.space.size)
        for decision, level in zip(found.decisions, levels, strict=True)
        if level and not decision.reason
    ]
    sizes = [(wanted, size) for wanted, size in sizes if wanted < size]
    if not sizes:
        return
    given = {n: options.get(n) or 1 for n in ("round_to", "min_units")}
    alone = {
        name: value
        for name, value in given.items()
        if all(width_of(*each, **{name: value}) == each[1] for each in sizes)
    }
    words = " and ".join(
        f"{n}={value}" for n, value in (alone or given).items()
    )
    warn(
        f"Nothing goes from {found.graph.model.name!r}: {words} keeps all "
        f"units, of which no layer has more than "
        f"{max(size for _, size in sizes)}. Pass less, or a larger ratio.",
    )
