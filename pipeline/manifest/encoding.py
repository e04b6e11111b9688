"""The encoding of a text file: UTF-8, UTF-16 or GB18030; others are recognised and refused by name.

Libraries that detect encodings need longer texts than a table of short sentences has: they take GB18030 for EUC-KR or
Big5. Here the Chinese reading is compared with every other reading by the share of characters that are frequent in
the language.
"""

from __future__ import annotations

import codecs
import logging
import re
import unicodedata
from collections.abc import Callable

from triptych.pipeline.errors import InputError

logger = logging.getLogger(__name__)

_CHINESE = frozenset(
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方多"
    "经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性"
    "知全三又关点正业外将两高间由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给世位次"
    "度门任常先海通教儿原东声提立及比员解水名真论处走义各入几口认条平系气题活尔更别打女变四神总何电数安少报才结反受目太量再感建"
    "务做接必场件计管期市直德资命山金指克许统区保至队形社便空决治展马科司五基眼书非则听白却界达光放强即像难且权思王象完设式色路"
    "记南品住告类求据程北边死张该交规万取拉格望觉术领共确传师观清今切院让识候带导争运笑飞风步改收根干造言联持组每济车亲极林服快"
    "办议往元英士证近失转夫令准布始怎呢存未远叫台单影具罗字爱击流备兵连调深商算质团集百需价花党华城石级整府离况亚请技际约示复病"
    "息究线似官火断精满支视消越器容照须九增研写称企八功吗包片史委乎查轻易早曾除农找装广显吧李标谈吃图念六引历首医局突专费号尽另"
    "周较注语仅考落青随选列啊嘛喜欢晚饭哪谁妈爸您哦嗯谢嫁娶"
)
_TRADITIONAL = frozenset(
    "這個們來為國說時會對過發後裡經學現當沒動還進樣開從實無長機關點業將兩間問並應戰頭體見產東聲員論處義條氣題認別變總電數報結"
    "務場計資統區隊決馬書聽達強難權設記類據邊張該規萬領確傳師觀讓識帶導爭運飛風聯組濟車親極辦議證轉準遠單羅愛擊備連調質團請際約"
    "複線斷滿視請專費號較語選隨歡飯誰媽謝給"
)
_KOREAN = frozenset(
    "이다는에을의하가고지기사로한도어서리아나자대인시있그들것수만해보은라게오여일부요정우제없주면었거니습를전과장내안모원상생세연"
    "데까저때러른년말성음와위으했좋합무스조경동되할같공미실마방네구화물소국적신분개선당바더드되려유진"
)


_CONTROL = re.compile("[\x00-\x08\x0e-\x19\x1b-\x1f]")


def decode(content: bytes, where: str) -> str:
    """Decode UTF-8 or UTF-16, with or without a byte order mark, or GB18030.

    Raises
    ------
    InputError
        The bytes are none of these; the message names the first byte that is not UTF-8, and the encoding that they
        are probably in.
    """
    if content.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)) and len(content) % 4 == 0:
        raise InputError(f"{where}: UTF-32 is not read; save it as UTF-8")
    if (wide := _utf16(content)) is not None:
        try:
            return content.decode(wide).removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{where}: byte {error.start} is not UTF-16, which the file begins with; save it as UTF-8"
            ) from error
    if re.search(rb"\x1b\$[@B]", content):
        raise InputError(f"{where}: not UTF-8; it is probably ISO-2022-JP. Save it as UTF-8")
    try:
        plain = content.removeprefix(codecs.BOM_UTF8).decode("utf-8")
        # Control characters of ASCII are in no text, but often are halves of UTF-16's characters.
        return (_unmarked_utf16(content, None) if _CONTROL.search(plain) else None) or plain
    except UnicodeDecodeError as error:
        first = error.start + len(content) - len(error.object)
    text = _decode_gb18030(content)
    if (unmarked := _unmarked_utf16(content, text)) is not None:
        return unmarked
    other = _other_encoding(content, text)
    if text is None or other:
        likely = f"; it is probably {other}" if other else ""
        raise InputError(
            f"{where}: byte {first} (0x{content[first]:02X}) is not UTF-8, and the file is not GB18030 either{likely}. "
            "Save it as UTF-8"
        )
    logger.info("%s: read as GB18030", where)
    return text


def _utf16(content: bytes) -> str | None:
    """Return UTF-16's name if the bytes have its mark, or are ASCII characters of two bytes for the most part."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    for name, zeros in (("utf-16-le", content[1::2]), ("utf-16-be", content[::2])):
        if len(zeros) > 4 and len(content) % 2 == 0 and zeros.count(0) * 3 > len(zeros):
            return name
    return None


def _unmarked_utf16(content: bytes, chinese: str | None) -> str | None:
    """Read UTF-16 without a mark, if that is a more likely text in Chinese than the bytes are in any other encoding."""
    others = [(_read(content, codec), frequent) for _, codec, frequent in _OTHERS]
    readings = [(chinese, _CHINESE.__contains__), *others]
    likely = max(0.0 if text is None else _share(text, frequent) for text, frequent in readings)
    texts = [_assigned(_read(content, name)) for name in ("utf-16-le", "utf-16-be")]
    shares = {_share(text, _CHINESE.__contains__): text for text in texts if text is not None}
    best = max(shares, default=0.0)
    return shares[best] if best > max(likely, 0.4) else None


def _decode_gb18030(content: bytes) -> str | None:
    return _assigned(_read(content, "gb18030"))


def _assigned(text: str | None) -> str | None:
    """Return a text, or None where it has characters that no text has, as bytes in another encoding often give."""
    strange = {each for each in set(text or "") if unicodedata.category(each) in ("Cn", "Co", "Cc")}
    return None if strange - set("\t\n\v\f\r\x1a\x85") else text


def _other_encoding(content: bytes, chinese: str | None) -> str | None:
    """Name an encoding in which the bytes are a more likely text than in GB18030, if there is one."""
    likely = 0.0 if chinese is None else _share(chinese, _CHINESE.__contains__)
    for name, codec, frequent in _OTHERS:
        text = _read(content, codec)
        if text is not None and _share(text, frequent) > max(likely, 0.25):
            return name
    if chinese is not None and _share(chinese, _is_kana) > 0.2:  # EUC-JP has kana at the same bytes
        return "EUC-JP"
    if likely < 0.25 and re.search(rb"[\x80-\xff]", content):
        return _single_bytes(content)
    return None


def _single_bytes(content: bytes) -> str | None:
    """Name an encoding of one byte a letter: single accented letters between ASCII, or words of Cyrillic ones."""
    runs = re.findall(rb"[\x80-\xff]+", content)
    alone = sum(len(run) == 1 for run in runs)
    if alone > 0.8 * len(runs) or re.search(rb"[A-Za-z][\x80-\xff]{2}[A-Za-z]", content):
        return "Windows-1252 or another Western European encoding"
    letters = [each for each in _read(content, "cp1251") or "" if ord(each) > 127]
    small = sum("\u0430" <= each <= "\u045f" for each in letters)
    return "Windows-1251" if letters and small > 0.7 * len(letters) else None


def _share(text: str, frequent: Callable[[str], bool]) -> float:
    """Return the share of frequent letters among those that are not ASCII."""
    letters = [each for each in text if ord(each) > 127 and unicodedata.category(each).startswith("L")]
    return sum(map(frequent, letters)) / len(letters) if letters else 0.0


def _is_kana(character: str) -> bool:
    return "\u3041" <= character <= "\u30fa"


def _read(content: bytes, codec: str) -> str | None:
    try:
        return content.decode(codec)
    except UnicodeDecodeError:
        return None


_OTHERS: tuple[tuple[str, str, Callable[[str], bool]], ...] = (
    ("EUC-KR", "cp949", _KOREAN.__contains__),
    ("Shift_JIS", "cp932", _is_kana),
    ("EUC-JP", "euc_jp", _is_kana),
    ("Big5", "cp950", (_CHINESE | _TRADITIONAL).__contains__),
)
