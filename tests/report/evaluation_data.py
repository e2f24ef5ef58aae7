"""An invented evaluation of two models, large enough to look at."""

from functools import cache

import numpy as np

from buddygpt.evaluation.scoreboard import Asked, Mark, paired, score
from buddygpt.report.evaluation import Evaluation
from buddygpt.report.scores import Measured

SUBJECTS = """agronomy anatomy ancient_chinese arts astronomy business_ethics chinese_civil_service_exam
chinese_driving_rule chinese_food_culture chinese_foreign_policy chinese_history chinese_literature
chinese_teacher_qualification clinical_knowledge college_actuarial_science college_education
college_engineering_hydrology college_law college_mathematics college_medical_statistics
college_medicine computer_science computer_security conceptual_physics
construction_project_management economics education electrical_engineering elementary_chinese
elementary_commonsense elementary_information_and_technology elementary_mathematics ethnology
food_science genetics global_facts high_school_biology high_school_chemistry high_school_geography
high_school_government_and_politics high_school_mathematics high_school_physics high_school_politics
human_sexuality international_law journalism jurisprudence legal_and_moral_basis logical
machine_learning management marketing marxist_theory modern_chinese nutrition philosophy
professional_accounting professional_law professional_medicine professional_psychology
public_relations security_study sociology sports_science traditional_chinese_medicine virology
world_religions""".split()


def drawn(seed, chance, subjects, items, spread=0.04):
    """Marks of a model that is right as often as `chance`, more or less, in each subject."""
    rng = np.random.default_rng(seed)
    found = {}
    for subject in subjects:
        rate = np.clip(rng.normal(chance, spread), 0, 1)
        found |= {(subject, str(i)): Mark(float(rng.random() < rate)) for i in range(items)}
    return found


@cache
def evaluation() -> Evaluation:
    asked = {
        "cmmlu": (Asked("cmmlu", "", "acc,none", 0.25, 5), SUBJECTS, 170, (0.252, 0.262)),
        "mmlu": (Asked("mmlu", "", "acc,none", 0.25, 5), SUBJECTS[:57], 240, (0.248, 0.25)),
        "ceval": (Asked("ceval", "", "acc,none", 0.25, 5, contaminated=7), SUBJECTS[:52], 26, (0.25, 0.31)),
        "gpqa": (Asked("gpqa", "", "acc_norm,none", 0.25, 0), [""], 448, (0.25, 0.24)),
        "ifeval": (Asked("ifeval", "", "prompt_level_strict_acc,none", None, 0), [""], 541, (0.1, 0.18)),
        "aime24": (Asked("aime24", "", "exact_match,none", 0.0, 0, cut=3), [""], 30, (0.0, 0.0)),
        "math-500": (Asked("math-500", "", "exact_match,none", None, 4), [""], 500, (0.004, 0.02)),
        "livecodebench": (Asked("livecodebench", "", "pass@1,none", None, 0), [""], 100, (0.0, 0.0)),
        "hellaswag": (Asked("hellaswag", "", "acc_norm,none", 0.25, 0), [""], 10_042, (0.29, 0.31)),
        "piqa": (Asked("piqa", "", "acc_norm,none", 0.5, 0), [""], 1_838, (0.55, 0.56)),
        "mmlu_continuation": (Asked("mmlu_continuation", "", "acc,none", 0.25, 0), SUBJECTS[:57], 240, (0.27, 0.28)),
    }
    rows, kept = [], []
    for m, model in enumerate(("0.1b-base", "0.1b-chat")):
        scores, found = [], {}
        for n, (task, (one, subjects, items, rates)) in enumerate(asked.items()):
            marks = found[task] = drawn(100 * m + n, rates[m], subjects, items, spread=0.06 if len(subjects) > 1 else 0)
            one = Asked(**{**vars(one), "chat": m == 1})
            more = {"total": 1055} if task == "livecodebench" else {}
            if task == "cmmlu" and m == 1:
                more["fewer_shots"] = {"chinese_civil_service_exam": 3, "ancient_chinese": 4}
            if task == "ifeval":
                names = ("inst_level_strict_acc", "prompt_level_loose_acc", "inst_level_loose_acc")
                more["extra"] = dict(zip(names, (0.21, 0.12, 0.24), strict=True))
            scores.append(score(one, marks, **more))
        rng = np.random.default_rng(m)
        marks = {("text", str(i)): Mark(float(rng.normal(4.1 - 0.2 * m, 0.2) * 500), 500.0) for i in range(60)}
        found["bits_per_character"] = marks
        scores.append(score(Asked("bits_per_character", "", "bits_per_character"), marks))
        rows.append(Measured(model, tuple(scores)))
        kept.append(found)
    comparisons = [
        paired(one.task, one.metric, (rows[0].model, kept[0][one.task]), (rows[1].model, kept[1][one.task]))
        for one in rows[0].scores
    ]
    facts = {
        "settings": [("device", "cpu"), ("precision", "bf16"), ("batch size", "64"), ("date", "2026-11-26"),
                     ("versions", "lm-eval 0.4.13, torch 2.11.0, transformers 5.24.0")],
        "sources of the data": [("cmmlu", "bench/cmmlu.zip"), ("ceval", "ceval/ceval-exam @ 3923b51")],
    }  # fmt: skip
    return Evaluation("0.1b", rows, comparisons, facts)
