"""How a few-shot head is built and trained."""

from emitdiff.segmentation.few_shot.recipe import Recipe


def test_more_time_buys_more_views_and_steps_up_to_a_point():
    recipe = Recipe()
    assert recipe.with_time(20) == recipe.with_time(60) == recipe
    longer, longest = recipe.with_time(120), recipe.with_time(240)
    assert recipe.views < longer.views < longest.views and recipe.steps < longer.steps < longest.steps
    assert recipe.with_time(3600) == longest
