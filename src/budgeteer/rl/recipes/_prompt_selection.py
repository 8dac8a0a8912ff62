"""This project's own: choose the prompts."""

from __future__ import annotations

from dataclasses import replace

from budgeteer.allocate import probing, selective
from budgeteer.rl.recipe import Recipe
from budgeteer.rl.recipes._duet import duet
from budgeteer.rl.replay import recent


def prompt_selection(*, probe: bool = False, replay: int = 0, thinned: bool = True) -> Recipe:
    """Choose the prompts: of three times as many candidates, those predicted to be solved or hopeless get no rollout.

    This is a method of this project and not of DUET, whose stopping rule, loss and memory it uses: the allocator is
    :func:`budgeteer.allocate.selective` over predictions of each prompt's success.

    Args:
        probe: small groups first, then more rollouts where these were mixed or may become so
            (:func:`budgeteer.allocate.probing`).
        replay: steps after its own in which a mixed group is learnt from again; 0 = none.
        thinned: as :func:`duet`'s.
    """
    recipe = replace(duet(thinned=thinned), name="prompt-selection", allocator=selective(), oversample=3)
    if probe:
        recipe = replace(recipe, allocator=probing(), rounds=2)
    return replace(recipe, replay=recent(replay)) if replay else recipe
