"""The exercises of all lessons: what they compute, on which inputs they are tried.

A name is the lesson's number, a dot, and the name of the function that the student writes.
"""

from rsepm_edu.course.exercises import lesson_01, lesson_03, lesson_04, lesson_05
from rsepm_edu.course.exercises.exercise import Exercise

EXERCISES: dict[str, Exercise] = {
    **lesson_01.EXERCISES,
    **lesson_03.EXERCISES,
    **lesson_04.EXERCISES,
    **lesson_05.EXERCISES,
}

__all__ = ["EXERCISES", "Exercise"]
