"""Two control families: `prior`, which the text alone answers, and `noise`, which nobody can."""

from random import Random

from difftrain.records import AnswerKind, TaskSet
from difftrain.shapes import scenes
from difftrain.shapes.families import Drawn, look, scatter, step


def prior(rng: Random, knob: float) -> Drawn:
    """A sum stated in the text, beside a picture that has nothing to do with it."""
    one = step(knob, 1, 9)
    two = rng.randint(1, 9)
    return Drawn(
        image=scenes.shapes(scatter(rng, [look(rng) for _ in range(rng.randint(1, 9))])),
        question=f"A box holds {one} pens and {two} cups. How many things are in the box?",
        thought=f"{one} + {two} = {one + two}",
        answer=str(one + two),
        kind=AnswerKind.number,
        task_set=TaskSet.reasoning,
        needs_picture=False,
    )


def noise(rng: Random, knob: float) -> Drawn:
    """A number that is nowhere to be seen; the knob is the size of what surrounds it."""
    return Drawn(
        image=scenes.shapes(scatter(rng, [look(rng) for _ in range(step(knob, 1, 9))])),
        question="Which number is on the back of the picture?",
        thought="a number",
        answer=str(rng.randint(100, 999)),
        kind=AnswerKind.number,
        task_set=TaskSet.perception,
        needs_picture=None,
    )
