"""The exercises of all lessons: what they compute, on which inputs they are tried.

A name is the lesson's number, a dot, and a function. The student's function has that name too, unless the lesson uses
it for something else: `stub_of` tells.
"""

from rsepm_edu.course.exercises import (
    lesson_00,
    lesson_01,
    lesson_02,
    lesson_03,
    lesson_04,
    lesson_05,
    lesson_06,
    lesson_07,
    lesson_08,
    lesson_09,
    lesson_10,
    lesson_11,
    lesson_12,
)
from rsepm_edu.course.exercises.exercise import Exercise

EXERCISES: dict[str, Exercise] = {
    **lesson_00.EXERCISES,
    **lesson_01.EXERCISES,
    **lesson_02.EXERCISES,
    **lesson_03.EXERCISES,
    **lesson_04.EXERCISES,
    **lesson_05.EXERCISES,
    **lesson_06.EXERCISES,
    **lesson_07.EXERCISES,
    **lesson_08.EXERCISES,
    **lesson_09.EXERCISES,
    **lesson_10.EXERCISES,
    **lesson_11.EXERCISES,
    **lesson_12.EXERCISES,
}

__all__ = ["EXERCISES", "Exercise", "stub_of"]


def stub_of(name: str) -> str:
    """The name that an exercise's function has in the notebook: nothing else in the lesson has it."""
    return EXERCISES[name].stub or name.partition(".")[2]
