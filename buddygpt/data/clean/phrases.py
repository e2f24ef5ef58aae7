"""Words of web pages that are no text: the frame around an article, and advertising.

Frames are cut out by whole lines. Advertising condemns a page, so it takes both density and variety: an article about
gambling names it often, an advertisement names it and also says where to click, whom to add and what is free.
"""

from __future__ import annotations

import re
from functools import cache

import numpy as np
from numpy.typing import NDArray

from buddygpt.data.clean.characters import Points

_MULTIPLIER = np.uint16(0x79B1)

_NEIGHBOUR = "(?:[上下]一[篇页章条则]|[上下]页)(?:[:：].*)?"
_STARTS = (
    # navigation
    rf"{_NEIGHBOUR}(?:[ \t|｜/]+{_NEIGHBOUR})*",
    r"(?:返回|回到|回)(?:顶部|首页|列表|目录|上一?页|网站首页)",
    r"[【\[]?(?:点击|点此|展开|继续)?(?:查看|阅读|展开|浏览)(?:全文|原文|更多|剩余\d*%?)(?:内容|>>?|»|…|\.{3})*[】\]]?",
    r"点击(?:这里|此处|下方|上方|图片|蓝字|链接|标题)?(?:即可|可)?(?:查看|阅读|展开|显示|进入|下载|关注|领取).{0,20}",
    r"(?:相关|热门|推荐|延伸|最新)(?:阅读|文章|推荐|新闻|资讯|标签|链接|内容)[:：]|猜你喜欢[:：]?",
    r"(?:打印|关闭|收藏)(?:本页|窗口|此页)?(?:[ \t|｜/]+(?:打印|关闭|收藏)(?:本页|窗口|此页)?)+",
    r"(?:设为首页|加入收藏)(?:[ \t|｜/]+(?:设为首页|加入收藏|联系我们))*",
    r"[【\[]?字体?号?[:：]?[ \t]*(?:[大中小][ \t|｜]*){2,3}[】\]]?.{0,12}",
    r"(?:当前|您的|您现在的|你的)位置[:：].{0,60}[>›»].{0,40}",
    r"(?:skip to (?:main )?content|back to top|read more|continue reading|load more|show more|view all"
    r"|previous (?:post|article|page)|next (?:post|article|page)|leave a (?:reply|comment)|advertisements?"
    r"|related (?:posts|articles|stories)|you may also like|sponsored)[ \t]*(?:\.{3}|…|»|>>?|→|:)?",
    # sharing, counters, editors
    r"(?:一键)?分享(?:到|至|给好友)?[:：]?(?:[ \t|｜/]*(?:微信|新浪微博|微博|朋友圈|QQ空间|QQ|豆瓣|人人网|复制链接))*",
    r"(?:share|tweet|pin it|follow us)(?: (?:this|on|to|via|with)\b.{0,40})?",
    r"(?:浏览|阅读|点击|访问|人气)(?:量|数|次数|次)?[:：(（][ \t]*\d+[ \t]*(?:次|人)?[)）]?",
    r"[(（\[【]?(?:责任编辑|责编|本文编辑|值班编辑|文字编辑|校对|审核)[:：].{0,30}",
    # law
    # not the (c) of licence texts, which are no frame
    r"(?:copyright)?[ \t]*©[ \t]*(?:copyright)?[ \t]*(?:19|20)\d\d.{0,80}|all rights reserved\.?",
    r"[(（【\[*]?(?:免责声明|版权声明|特别声明)[】\]]?[:：].{10,200}",
    r"(?:this (?:web)?site|we) uses? cookies?\b.{0,200}",
    r"by (?:continuing to use|using|browsing) (?:this|our) (?:web)?site.{0,200}",
    r"(?:accept|reject|allow|manage)(?: all)? cookies?(?: (?:settings|preferences))?",
    r"(?:please )?(?:enable|turn on|activate) java ?script\b.{0,100}",
    r"java ?script (?:is (?:disabled|required|not enabled)|must be enabled)\b.{0,100}",
    # follow us
    r"(?:欢迎)?(?:关注|搜索)(?:我们的?|本站)?(?:官方)?(?:微信)?公众(?:号|平台)[:：\"“「【].{0,40}",
    r"(?:subscribe|sign up) (?:to|for) (?:our|the) (?:free )?(?:weekly |daily )?newsletter.{0,60}",
)
"""Lines known by how they begin."""
_FIRST = "上下返回点查阅展继浏相热推延最猜打关收设加字当您你一分访人责本值文校审免版特欢搜【([（*©sbrclvpnaytfwej"
_PLACES = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼港"
_PARTS = (
    ("版权所有", r".{0,40}版权所有.{0,60}"),
    ("ICP", rf".{{0,40}}[{_PLACES}][ \t]*ICP[ \t]*(?:备|证)[ \t]*\d{{6,}}.{{0,40}}"),
    ("公网安备", r".{0,40}公网安备[ \t]*\d+号?.{0,10}"),
    ("转载", r".{0,30}转载(?:时)?(?:请|须|务必)(?:务必)?(?:注明|标明|保留|联系).{0,60}"),
    (
        "二维码",
        r".{0,12}(?:扫一扫|扫描|扫码|长按|识别)(?:[上下]方|[上下]面|[上下]图|图中|[左右]侧)?的?(?:微信)?二维码.{0,40}",
    ),
)
"""Lines known by a part of them: the part, and the whole line."""


def _line(pattern: str) -> re.Pattern[str]:
    # The line feed before it, not `^`: that one literal makes the search ten times as fast.
    return re.compile(rf"\n[ \t\u3000]*(?:{pattern})[ \t\u3000]*(?=\n)", re.IGNORECASE)


_FRAMES = (
    ("\n", _line(f"(?=[{re.escape(_FIRST)}])(?:{'|'.join(_STARTS)})")),
    *((part, _line(pattern)) for part, pattern in _PARTS),
)

_GOODS = """
代开发票 发票代开 代开增值 代办证 办证刻 刻章办 办理证件 假文凭 假币 信用卡套 套现 无抵押 黑户 快速放款 当天放款
时时彩 六合彩 北京赛车 赛车pk 百家乐 博彩 娱乐城 新葡京 葡京赌 威尼斯人娱 真人荷官 真人视讯 老虎机 棋牌平
体育投注 足球投注 彩票平 彩票计 彩票预 开奖结果 彩金 返水 首存
裸聊 约炮 一夜情 成人电影 成人影 情色 迷药 催情 丰胸 壮阳 早泄 增大增 代孕 祖传秘 根治 特效药 包治
私服发 传奇私服 刷钻 刷单兼 兼职日结 日赚 月入过万 网赚 代写论文 论文代写
casinos? viagra cialis payday␣loans? escorts? slot␣(?:machine|game)s? slots␣online betting gambling poker jackpots?
sportsbooks? porn␣(?:video|site)s? adult␣videos? replica␣(?:watch|bag|rolex|handbag) louis␣vuitton backlinks?
weight␣loss␣pills? forex␣signals? work␣from␣home make␣money␣(?:fast|online) essay␣writing␣service
"""
"""What spam sells; ␣ stands for a space. A phrase begins with two plain characters, an English one with five."""
_CALLS = r"""
加微信 加我微 加v(?:信|我|[:：]) 加扣扣 加qq 微信同号 微信号?[:：]?␣?[a-z][a-z\d_-]{5,19} v信[:：] 薇信 威信[:：]
qq群?号?[:：]?␣?\d{5,11} 扣扣[:：]?␣?\d{5,11} 电话[:：]?␣?1[3-9]\d{9} 电话[:：]?␣?0\d{2,3}-?\d{7,8}
手机号?[:：]?␣?1[3-9]\d{9} 热线[:：]?␣?[\d-]{7,13} 咨询热线 咨询电话 咨询微信 免费咨询 欢迎来电 欢迎订购
注册(?:就|即|立即)?送 立即注册 免费注册 官网开户 开户送 点击进入 点击领取 官方网址 最新网址 备用网址 手机版下
货到付款 全国包邮 厂家直销 量大从优 诚信经营 长期有效 先办后 包过 保过 不成功不 限时抢 马上抢
click␣here buy␣now call␣now order␣now order␣(?:online␣)?today sign␣up␣(?:now|today) no␣deposit money␣back cheapest
free␣(?:spins|shipping|trial|bonus) limited␣time␣offer cheap␣(?:price|online|generic) best␣prices?
without␣prescription whatsapp␣?[:+] telegram␣?[:@]
"""
"""How spam wants to be answered. No phrase is unbounded: it is tried at each of its beginnings."""
_NOT_WITHIN = "(?:(?<![a-z])|(?![a-z]))"  # \b would see no border between Latin and Chinese


def _pattern(words: str) -> str:
    return _NOT_WITHIN + "(?:" + "|".join(words.split()).replace("␣", " ") + ")" + _NOT_WITHIN


_ADVERT = re.compile(f"(?P<goods>{_pattern(_GOODS)})|(?P<call>{_pattern(_CALLS)})", re.IGNORECASE)


def cut_frames(text: str) -> str:
    """The text without the lines that belong to a page's frame."""
    framed = f"\n{text}\n"
    found = False
    for part, pattern in _FRAMES:
        if part in framed and pattern.search(framed):
            framed, found = pattern.sub("", framed), True
    return framed.strip() if found else text


def count_advertising(text: str, points: Points, least: float) -> tuple[int, int, int]:
    """How often a text advertises; with how many different phrases; and how many of these call to act.

    Args:
        text: judged.
        points: its code points.
        least: fewer phrases than this need not be counted, and give zeros.
    """
    pairs, fives = _heads()
    pair, five = _codes(points)
    here = pairs.take(pair)
    here[: len(five)] |= fives.take(five)
    places = here.nonzero()[0]
    if len(places) < least:
        return 0, 0, 0
    found = [match for place in places.tolist() if (match := _ADVERT.match(text, place))]
    phrases = {(match.group().lower(), match.lastgroup) for match in found}
    return len(found), len(phrases), sum(group == "call" for _, group in phrases)


def _codes(points: Points) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """A hash of each two neighbours, and one of each five (the middle one left out)."""
    # One case for letters. Other characters fall together too, which only raises the bound.
    folded = points.astype(np.uint16) | np.uint16(32)
    pairs = folded[:-1] * _MULTIPLIER + folded[1:]
    return pairs, pairs[:-3] * _MULTIPLIER + pairs[3:]


@cache
def _heads() -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which codes the first two characters of phrases have, or where all five are English, the first five."""
    pairs, fives = np.zeros(1 << 16, bool), np.zeros(1 << 16, bool)
    for phrase in (_GOODS + _CALLS).split():
        head = phrase.replace("␣", " ")[:5]
        pair, five = _codes(np.array([ord(c) for c in head], np.uint32))
        if head.replace(" ", "").isascii() and head.replace(" ", "").isalpha():
            fives[five[0]] = True
        else:
            pairs[pair[0]] = True
    return pairs, fives
