"""Boxes of models that count in 0 to 1000 of the image's sides, not in its pixels."""

import json
from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw

from difftrain import grade, images
from difftrain.config.difficulty import BoxCoordinates, GradeConfig
from difftrain.grade.boxes import boxes_in_model_coordinates, in_pixels, parse
from difftrain.grade.pool import GraderPool
from difftrain.records import AnswerKind, Sample, TaskSet, Verdict
from difftrain.train import sft

RELATIVE = GradeConfig(box_coordinates=BoxCoordinates.relative)
SIZE, BOX = (448, 224), (100, 50, 300, 150)  # width and height; pixels


def sample_with_box() -> Sample:
    image = Image.new("RGB", SIZE, "white")
    ImageDraw.Draw(image).rectangle((BOX[0], BOX[1], BOX[2] - 1, BOX[3] - 1), fill="red")
    return Sample(
        sample_id="a",
        images=(images.to_png(image),),
        question="Where is the red box?",
        answer=json.dumps([{"bbox_2d": BOX, "label": "red box"}]),
        answer_kind=AnswerKind.boxes,
        task="detection",
        task_set=TaskSet.perception,
        source="test",
        rationale="It is red.",
    )


def response(box: tuple[int, ...]) -> str:
    answer = json.dumps([{"bbox_2d": box, "label": "red box"}])
    return f"<think>It is red.</think><answer>{answer}</answer>"


def test_relative_boxes_are_correct_only_under_relative_coordinates() -> None:
    sample, relative = sample_with_box(), (223, 223, 670, 670)
    assert grade.grade(response(relative), sample, RELATIVE) is Verdict.correct
    assert grade.grade(response(BOX), sample, RELATIVE) is Verdict.incorrect
    assert grade.grade(response(BOX), sample) is Verdict.correct
    assert grade.grade(response(relative), sample) is Verdict.incorrect


def test_workers_know_the_images_size() -> None:
    sample = sample_with_box()
    with GraderPool(1, 20.0) as pool:
        (result,) = grade.grade_batch(pool, [response((223, 223, 670, 670))], [sample], RELATIVE)
    assert isinstance(result, grade.GradeResult)
    assert result.verdict is Verdict.correct


def test_an_sft_target_in_relative_coordinates_draws_the_box_back() -> None:
    sample = sample_with_box()
    target = str(sft.from_rationale(sample, BoxCoordinates.relative))
    assert grade.grade(target, sample, RELATIVE) is Verdict.correct
    boxes = parse(target.partition("<answer>")[2].removesuffix("</answer>"))
    assert boxes is not None
    (box,) = in_pixels(boxes.boxes, SIZE)
    pixels = np.asarray(images.from_png(sample.images[0]))
    corners = [round(value) for value in (box.x1, box.y1, box.x2, box.y2)]
    x1, y1, x2, y2 = corners
    assert (pixels[y1:y2, x1:x2] == (255, 0, 0)).all()
    outside = pixels.copy()
    outside[y1:y2, x1:x2] = 255
    assert (outside == 255).all()
    assert str(sft.from_rationale(sample)) == response(BOX)


def test_a_text_that_is_no_list_of_boxes_is_unchanged() -> None:
    assert boxes_in_model_coordinates("3 boxes", SIZE) == "3 boxes"
    other_kind = replace(sample_with_box(), answer_kind=AnswerKind.text, answer="a [1, 2]")
    assert "a [1, 2]" in str(sft.from_rationale(other_kind, BoxCoordinates.relative))
