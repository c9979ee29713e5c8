"""`difftrain grade`: explains how one response would be graded."""

from difftrain.config.difficulty import GradeConfig
from difftrain.config.run_config import ConfigError
from difftrain.config.setting import did_you_mean
from difftrain.data import answers
from difftrain.data.quarantine import RowError
from difftrain.grade import extract, grade_with_credit
from difftrain.records import AnswerKind, Sample

KEYS = ("gold", "response", "kind", "question", "options")
USAGE = """\
usage: {program} gold=TEXT [gold=TEXT ...] response=TEXT [kind=KIND] [question=TEXT]
       [options=A|B|...] [grade.KEY=VALUE ...]

Print how one response is graded: verdict, the values that were compared, and the rule that decided.
Without kind=, the kind of the gold answer is inferred as for a training row. Several gold= are
several accepted answers. A response without <answer></answer> is taken as the answer itself."""


def split_arguments(arguments: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """The arguments of this command by key, and the settings among them."""
    fields: dict[str, list[str]] = {key: [] for key in KEYS}
    settings = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if equals and key in fields:
            fields[key].append(value)
        else:
            settings.append(argument)
    return fields, settings


def explain(fields: dict[str, list[str]], rules: GradeConfig) -> str:
    """The lines that this command prints. Raises ConfigError for missing or unusable fields."""
    problems = [f"{key}=: must be given" for key in ("gold", "response") if not fields[key]]
    problems += [f"{key}=: only one may be given" for key in KEYS[1:] if len(fields[key]) > 1]
    if problems:
        raise ConfigError(problems)
    golds, response = [*map(answers.unwrap, fields["gold"])], fields["response"][0]
    question = "".join(fields["question"])
    options = _options("".join(fields["options"]))
    kind_name = "".join(fields["kind"])
    kind_name = kind_name or answers.infer_kind_of_all(golds, "", question, options)
    if kind_name not in [*AnswerKind]:
        hint = did_you_mean(kind_name, [*AnswerKind])
        raise ConfigError([f"kind={kind_name}: must be one of: {', '.join(AnswerKind)}{hint}"])
    kind = AnswerKind(kind_name)
    try:
        accepted = answers.gradable_answers(golds, kind, options)
    except RowError as error:
        raise ConfigError([f"gold= of kind {kind}: {error}"]) from error
    note = ""
    if extract.tag_content(response) is None:
        note = "\nnote:    no closed answer tags, so training would find no answer in this response"
        response = f"{extract.OPEN_TAG}{response}{extract.CLOSE_TAG}"
    task_set = answers.task_set("", kind)
    sample = Sample(
        sample_id="",
        images=(),
        question=question,
        answer=accepted[0],
        answer_kind=kind,
        options=options,
        accepted=accepted if len(accepted) > 1 else (),
        task="",
        task_set=task_set,
        source="command line",
    )
    result = grade_with_credit(response, sample, rules)
    return (
        f"verdict: {result.verdict} (credit {result.credit:g})\n"
        f"kind:    {kind}\n"
        f"answer:  {'-' if result.decision.answer is None else result.decision.answer}\n"
        f"gold:    {result.decision.gold}\n"
        f"rule:    {result.decision.rule}{note}"
    )


def _options(text: str) -> tuple[str, ...]:
    """The options A, B, ... in `A|B|...`. Raises ConfigError for an empty one."""
    options = text.split("|") if text else []
    if not all(option.strip() for option in options):
        raise ConfigError([f"options={text}: an option is empty, so the letters would shift"])
    try:
        return answers.strip_option_marks(options)
    except RowError as error:
        raise ConfigError([f"options=: {error}"]) from error
