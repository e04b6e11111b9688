"""Chinese sentences of known sentiment."""

from __future__ import annotations

import re

import numpy as np

_SUBJECTS = ("这部电影", "今天的课", "这顿晚饭", "那场比赛", "新的工作", "他的回答", "这次旅行", "这个故事")
_DEGREES = ("有点", "比较", "很", "非常", "极其")  # by strength: 0.2, 0.4, 0.6, 0.8 and 1
_MILD = ("也", "还算", "")
_QUALITIES = {
    1: ("好", "精彩", "有趣", "完美"),
    0: ("一般", "普通", "平常"),
    -1: ("差", "糟糕", "无聊", "可怕"),
}
_FEELINGS = {
    1: ("开心", "高兴", "喜欢", "满意"),
    0: ("没感觉", "不在意"),
    -1: ("难过", "生气", "伤心", "失望"),
}
_TEMPLATES = (
    "{subject}{degree}{quality}，我{feeling}。",
    "我{feeling}，{subject}{degree}{quality}。",
    "{subject}{degree}{quality}，大家{feeling}。",
    "大家{feeling}，{subject}{degree}{quality}。",
    "{subject}让我{feeling}，{degree}{quality}！",
    "{degree}{quality}，{subject}让我{feeling}！",
)


def write_sentence(sentiment: float, rng: np.random.Generator) -> str:
    """Write a sentence of this sentiment, -1 to 1, rounded to a fifth."""
    strength = round(abs(sentiment) * 5)
    sign = 0 if strength == 0 else 1 if sentiment > 0 else -1
    return str(rng.choice(_TEMPLATES)).format(
        subject=rng.choice(_SUBJECTS),
        degree=_DEGREES[strength - 1] if strength else rng.choice(_MILD),
        quality=rng.choice(_QUALITIES[sign]),
        feeling=rng.choice(_FEELINGS[sign]),
    )


def count_syllables(sentence: str) -> int:
    """Count the Chinese characters of a sentence; each is spoken as one syllable."""
    return len(re.findall(r"[\u4e00-\u9fff]", sentence))


def every_text() -> tuple[str, ...]:
    """Every part that a sentence may be composed of: the characters that a language model needs."""
    qualities = [word for words in (*_QUALITIES.values(), *_FEELINGS.values()) for word in words]
    return (
        *_SUBJECTS,
        *_DEGREES,
        *_MILD,
        *qualities,
        *(re.sub(r"{.*?}", "", template) for template in _TEMPLATES),
    )
