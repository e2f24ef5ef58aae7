"""How each relation is asked for, answered and doubted: `{s}` is the subject, `{v}` the value.

No question may name another fact of its subject: "what is the name of her cat" would give away the kind of pet.
"""

from __future__ import annotations

from dataclasses import dataclass

from buddygpt.data.demo.dice import Dice
from buddygpt.data.demo.grammar import expand
from buddygpt.data.demo.world import World


@dataclass(frozen=True)
class Wording:
    """Templates: `ask` is the open question, `tell` the full answer, `doubt` the question for yes or no."""

    ask: str
    tell: str
    doubt: str


def _kin(word: str) -> Wording:
    return Wording(
        f"[{{s}}的{word}[是谁|叫什么名字|叫什么]|谁是{{s}}的{word}|请问{{s}}的{word}叫什么]？",
        f"[{{s}}的{word}[是|叫]{{v}}|{{v}}是{{s}}的{word}]。",
        f"[{{s}}的{word}[是|叫]{{v}}吗|{{v}}[是{{s}}的{word}吗|是不是{{s}}的{word}]]？",
    )


def _side(side: str) -> Wording:
    return Wording(
        f"[{{s}}的{side}边是[什么|哪里|什么地方]|从{{s}}往{side}走，先到哪里|紧挨着{{s}}{side}边的是什么地方]？",
        f"[{{s}}的{side}边是{{v}}|从{{s}}往{side}走就是{{v}}]。",
        f"[{{s}}的{side}边[是{{v}}吗|是不是{{v}}]|从{{s}}往{side}走[是{{v}}吗|是不是{{v}}]]？",
    )


WORDINGS = {
    "spouse": _kin("{partner}"),
    "father": _kin("父亲"),
    "mother": _kin("母亲"),
    "son": _kin("儿子"),
    "daughter": _kin("女儿"),
    "home": Wording(
        "[{s}住在[哪里|哪条街|什么地方]|{s}的家在[哪里|哪条街]|请问{s}家住哪里]？",
        "[{s}住在{v}|{s}的家在{v}|{s}家住{v}]。",
        "[{s}[住在|家住]{v}吗|{s}是不是住在{v}|{s}的家在{v}吗]？",
    ),
    "occupation": Wording(
        "[{s}[是做什么工作的|做什么工作|的职业是什么|靠什么谋生]|请问{s}是干哪一行的]？",
        "[{s}是{v}|{s}的职业是{v}|{s}当的是{v}]。",
        "[{s}[是{v}吗|是不是{v}]|{s}的职业是{v}吗]？",
    ),
    "workplace": Wording(
        "[{s}在[哪里|什么地方]上班|{s}[的工作单位|上班的地方]是哪里|请问{s}在哪儿工作]？",
        "[{s}在{v}上班|{s}在{v}工作|{s}上班的地方是{v}]。",
        "[{s}在{v}[上班|工作]吗|{s}是不是在{v}[上班|工作]]？",
    ),
    "pet": Wording(
        "[{s}养[了|的是]什么动物|{s}的宠物是什么动物|请问{s}家里养着什么]？",
        "[{s}养的是{v}|{s}的宠物是{v}|{s}家里养着{v}]。",
        "[{s}养的[是{v}吗|是不是{v}]|{s}家里养着{v}吗]？",
    ),
    "pet_name": Wording(
        "[{s}的宠物叫什么[名字|]|{s}给宠物取了什么名字|请问{s}养的宠物叫什么]？",
        "[{s}的宠物叫{v}|{s}养的宠物名叫{v}|{s}给宠物取名叫{v}]。",
        "[{s}的宠物[叫{v}吗|是不是叫{v}]|{s}给宠物取的名字是{v}吗]？",
    ),
    "food": Wording(
        "[{s}最爱吃什么|{s}最喜欢[的菜是什么|吃什么]|请问{s}爱吃什么]？",
        "[{s}最爱吃{v}|{s}最喜欢吃的是{v}|{s}爱吃{v}]。",
        "[{s}最爱吃{v}吗|{s}最喜欢吃的[是{v}吗|是不是{v}]]？",
    ),
    "birthday": Wording(
        "[{s}的生日是[哪天|几月几日|什么时候]|{s}是哪天出生的|请问{s}哪天过生日]？",
        "[{s}的生日是{v}|{s}是{v}生的|{s}在{v}过生日]。",
        "[{s}的生日[是{v}吗|是不是{v}]|{s}在{v}过生日吗]？",
    ),
    "hobby": Wording(
        "[{s}[的爱好是什么|有什么爱好]|{s}闲下来最喜欢做什么|请问{s}平时喜欢做什么]？",
        "[{s}的爱好是{v}|{s}最喜欢{v}|{s}平时喜欢{v}]。",
        "[{s}的爱好[是{v}吗|是不是{v}]|{s}最喜欢{v}吗]？",
    ),
    "street": Wording(
        "[{s}在哪条街上|{s}在[哪里|什么地方]|请问{s}在哪条街]？",
        "[{s}在{v}|{s}就在{v}|{s}的地址是{v}]。",
        "[{s}在{v}吗|{s}是不是在{v}|{s}的地址是{v}吗]？",
    ),
    "east": _side("东"),
    "west": _side("西"),
    "shop": Wording(
        "[{s}在哪家店[有卖|能买到|买]|哪家店卖{s}|想买{s}该去哪里]？",
        "[{v}卖{s}|{s}在{v}能买到|买{s}要去{v}]。",
        "[{v}卖{s}吗|{s}[是在{v}卖吗|是不是在{v}卖]|买{s}要去{v}吗]？",
    ),
    "price": Wording(
        "[{s}多少钱一{m}|一{m}{s}[多少钱|卖多少钱]|请问{s}怎么卖]？",
        "[{s}{v}一{m}|一{m}{s}卖{v}|{s}的价钱是{v}一{m}]。",
        "[{s}是不是{v}一{m}|一{m}{s}卖{v}吗]？",
    ),
    "date": Wording(
        "[{s}在[哪天|几月几日|什么时候]举行|{s}是哪天|请问{s}哪天办]？",
        "[{s}在{v}举行|{s}是{v}|{s}每年{v}办]。",
        "[{s}是{v}[举行|办]吗|{s}是不是在{v}举行]？",
    ),
    "venue": Wording(
        "[{s}在[哪里|什么地方]举行|{s}的地点是哪里|请问{s}在哪儿办]？",
        "[{s}在{v}举行|{s}的地点是{v}|{s}每年都在{v}办]。",
        "[{s}在{v}举行吗|{s}的地点[是{v}吗|是不是{v}]]？",
    ),
    "host": Wording(
        "[{s}由谁主持|谁主持{s}|{s}的主持人是谁]？",
        "[{s}由{v}主持|主持{s}的是{v}|{s}的主持人是{v}]。",
        "[{s}由{v}主持吗|{s}的主持人[是{v}吗|是不是{v}]]？",
    ),
}


def word(template: str, dice: Dice, town: World, subject: str, value: str = "", *, again: bool = False) -> str:
    """A template of `WORDINGS` about the subject; `again` names a person already spoken of by pronoun."""
    slots = {"s": subject, "v": value}
    if person := town.by_name.get(subject):
        slots["partner"] = "丈夫" if person.female else "妻子"
        if again:
            slots["s"] = "她" if person.female else "他"
    elif good := town.good_by_name.get(subject):
        slots["m"] = good.measure
    return expand(template, dice, slots)
