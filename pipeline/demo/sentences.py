"""Chinese sentences whose words carry a sentiment of known strength."""

from __future__ import annotations

import re

import numpy as np

_SUBJECTS = (
    "这部电影",
    "今天的课",
    "这顿晚饭",
    "那场比赛",
    "新的工作",
    "他的回答",
    "这次旅行",
    "那家饭店",
    "这个故事",
    "昨天的事",
)
# By strength, weakest first: 0.2, 0.4, 0.6, 0.8 and 1.
_DEGREES = ("有点", "比较", "很", "非常", "极其")
_GOOD = ("好", "精彩", "有趣", "温暖", "完美", "可爱")
_BAD = ("差", "糟糕", "无聊", "可怕", "失败", "讨厌")
_PLAIN = ("一般", "普通", "平常")
_GLAD = ("开心", "高兴", "喜欢", "感动", "满意")
_SORRY = ("难过", "生气", "伤心", "失望", "后悔")
_CALM = ("没感觉", "不在意", "没意见")

_TEMPLATES = (
    "{subject}{degree}{quality},我{feeling}。",
    "我{feeling},{subject}{degree}{quality}。",
    "{subject}真是{degree}{quality},大家{feeling}。",
    "说到{subject},{degree}{quality},我{feeling}!",
    "大家{feeling},因为{subject}{degree}{quality}。",
    "{subject}让我{feeling},{degree}{quality}。",
)


def write_sentence(sentiment: float, rng: np.random.Generator) -> str:
    """Write a sentence that says so much: sentiment in -1 to 1, to the nearest fifth."""
    strength = round(abs(sentiment) * 5)
    if strength == 0:
        degree, qualities, feelings = str(rng.choice(("也", "还算", ""))), _PLAIN, _CALM
    else:
        degree = _DEGREES[strength - 1]
        qualities, feelings = (_GOOD, _GLAD) if sentiment > 0 else (_BAD, _SORRY)
    return str(rng.choice(_TEMPLATES)).format(
        subject=rng.choice(_SUBJECTS),
        degree=degree,
        quality=rng.choice(qualities),
        feeling=rng.choice(feelings),
    )


def count_syllables(sentence: str) -> int:
    """Chinese characters in a sentence, each spoken as one syllable."""
    return len(re.findall(r"[\u4e00-\u9fff]", sentence))


def every_text() -> tuple[str, ...]:
    """Every piece that a sentence may be made of: the vocabulary that a language model needs."""
    return (*_SUBJECTS, *_DEGREES, *_GOOD, *_BAD, *_PLAIN, *_GLAD, *_SORRY, *_CALM, *_TEMPLATES, "也还算")
