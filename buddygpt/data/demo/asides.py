"""Sentences that fit almost anywhere: single facts about a person, the weather, and words of one meaning."""

from __future__ import annotations

from buddygpt.data.demo.grammar import templates, words

VOCABULARY = {
    "often": words("常常 经常 时常 总是 老是 时不时"),
    "morning": words("清早 早晨 一大早 清晨 天刚亮"),
    "evening": words("傍晚 黄昏时 天黑前 太阳落山时 掌灯时分"),
    "folks": words("街坊们 邻居们 大家 左邻右舍 乡亲们 镇上的人 老街坊 熟人们"),
    "says": words("说 笑着说 笑道 高兴地说 慢慢地说 认真地说 连忙说 轻声说 大声说 不慌不忙地说"),
    "asks": words("问 问道 好奇地问 随口问 笑着问"),
    "happy": words("高兴 快活 开心 欢喜 满意"),
    "very": words("很 十分 非常 特别 格外"),
    "now": words("如今 现在 眼下 这些年 这几年"),
    "free": words("一有空 得了空 闲下来 逢上休息日 到了星期天 忙完了活 歇工的时候"),
    "once": words("有一天 有一次 有一回 前几天 上个月 不久前 前些日子"),
    "later": words("后来 过了一会儿 不多时 没过多久 最后 隔了半天"),
    "really": words("果然 真的 确实 果真"),
    "friend": words("朋友 好友 老朋友 熟人"),
    "years": words("好些年 许多年 很久 多年 好几年"),
}
"""Words that may stand for each other; every paragraph's slots include them."""

SETTINGS = templates("""
    [天|天气][晴得好|有点凉|刚刚转暖|闷得很|不冷不热]，[云走得很慢|河水[清亮亮|慢悠悠]地流着|树叶[沙沙地响|轻轻地摇]]。

    [桃花|杏花|梨花][开了|开得正好|落了一地]，[燕子|喜鹊|麻雀][飞来飞去|在屋檐下叫|停在墙头上]。

    [知了|青蛙]叫个不停，[井水|树荫|河边]最[凉快|叫人舒服]。

    [桂花|菊花]开了，[风|天]凉了，[柿子|石榴|山楂][红了|熟了|挂满枝头]。

    [下了|刚下过]一场[小|大]雪，[屋顶|树梢|石板路]上[白茫茫的|一片白|还没有脚印]。

    [下着|刚下过]一阵[小雨|细雨|急雨]，[石板路|屋檐|院墙][湿漉漉的|亮闪闪的]，[空气清清爽爽|风里有泥土的气味]。

    [雾|云]散了，[太阳|阳光]照在[河面上|桥上|瓦片上|院子里]，[暖洋洋的|亮得耀眼]。
""")
"""What the day was like."""

ASIDES = {
    "home": templates("""
        {who}{now}[住在|的家在|家就在]{home}。

        要找{p}，[到|去]{home}[一问便知|准没错|打听就行]。

        {home}的[人|老老少少][都认得|个个熟悉]{g}。

        [下了班|天一黑|忙完一天]，{who}总要[先|]回{home}[歇一歇|看一看]。

        [搬家|换个地方住]？{g}说{p}[舍不得|离不开]{home}。

        {who}和{mate}[把家安在|一直住在]{home}，[门前|窗下]种着[一棵枣树|几丛竹子|一架葡萄|两棵柿子树]。
    """),
    "workplace": templates("""
        {who}{now}在{place}[上班|工作]，是[那里的|一名]{job}。

        {place}的人都夸{g}[手脚勤快|做事认真|待人和气]，[说{p}是个好{job}|没见过这么好的{job}]。

        {who}当{job}{years}了，[从来|一直]没离开过{place}。

        [别看|虽说]{p}{now}[爱说爱笑|话不多]，一到{place}，{p}就[专心|认认真真]{duty}，[谁叫也听不见|不肯歇一歇]。

        要是在{place}看见一位[正在|忙着]{duty}的{job}，那[多半|准]是{g}。

        {g}[做梦|睡着了]也[惦记|想]着{place}，[梦里|有时]还在{duty}。

        [论|说到]当{job}，{place}里[数|要数]{g}[最有耐心|最让人放心|资格最老]。
    """),
    "pet": templates("""
        {who}[家里|]养着一{m}{pet}，{often}{habit}。

        {g}[还|]有一{m}{pet}，名字叫{pname}。

        [家里|院子里]那{m}叫{pname}的{pet}，是{g}的[宝贝|心头肉|伙伴]。

        {who}的{pet}叫{pname}，{often}{habit}。

        {pname}是{who}[养的|从小养大的|的][一{m}|]{pet}，{often}{habit}。

        [出门|上班]前，{who}总不忘给{pname}[添水|喂食]，那{m}{pet}[却只顾|就]{habit}。

        [每次|每当]{g}[下班|回家]，[那{m}|家里的]{pet}{pname}{often}{habit}。
    """),
    "food": templates("""
        {who}[最爱|顶爱|最喜欢]吃[的是|]{food}。

        [要说吃的|说到吃|若问口味]，{who}[只认|最爱|头一个想到]{food}。

        [桌上|碗里|锅里]只要有{food}，{g}就[多吃一碗饭|眉开眼笑|忘了烦心事]。

        {mate}[知道|记得]{p}[爱吃|喜欢]{food}，[隔几天|逢年过节]就[做一回|端上一份]。

        [别的菜|山珍海味]{who}都[不稀罕|不在乎]，[只要|有]{food}就[够了|心满意足]。

        {food}[做得好不好|地道不地道]，{g}[尝一口|闻一闻]就知道，[因为|]{p}从小[最爱|就爱]吃这个。
    """),
    "birthday": templates("""
        {who}的生日[是|在]{bday}。

        {who}[是{bday}生的|生在{bday}]。

        每年{bday}，{g}[都要过生日|又长一岁]。

        [若问|要问]{p}[哪天过生日|的生辰]，{mate}[张口|马上]就能答：{bday}。

        {bday}[这一天|那天]，{g}[家里|]{often}[要吃长寿面|来许多客人]，因为那是{p}的生日。

        [亲戚|朋友]都[记得|知道]，{bday}是{g}的生日。
    """),
    "hobby": templates("""
        {who}[平日|平时|闲下来]最[喜欢|爱]{hobby}。

        {free}，{who}[就|便]{scene}。

        {g}[没有别的爱好|别的都不爱]，[就爱|只爱]{hobby}。

        {often}有人看见{g}{scene}，[叫{p}也不应|一待就是半天|神气得很]。

        [不上班|歇工]的时候[若是|要是]找不到{p}，{p}[准是|多半在]{hobby}去了。

        [说起|谈到]{hobby}，{g}的话[就多了|三天也说不完]。

        {mate}[劝过|说过]{p}[少|别老]{hobby}，{who}[嘴上答应|点点头]，{free}却又{scene}。
    """),
    "spouse": templates("""
        {who}的{partner}[叫|是|名叫]{mate}。

        {g}[和|跟]{partner}{mate}[{very}恩爱|感情很好|从没红过脸|有商有量]。

        {mate}是{g}的{partner}。

        [家里的事|大事小事]，{who}都[听|要问]{partner}{mate}的[|意见]。

        {partner}{mate}[提起|说到]{g}，{often}[满脸是笑|又爱又气|夸个不停]。
    """),
    "kin": templates("""
        {who}的{role1}[叫|是|名叫]{kin1}，{role2}[叫|是|名叫]{kin2}。

        {g}{often}[惦记着|提起|说起]{role1}{kin1}和{role2}{kin2}。

        [逢年过节|每到中秋|过年时]，{role1}{kin1}和{role2}{kin2}都[要来看|会来看]{p}。

        [前几天|昨天|上星期]，{role1}{kin1}给{p}[捎来|送来]{good}，{role2}{kin2}[捎来|送来]{present}。
    """),
}
"""Sentences that state one fact, or two that belong together, about a person already named."""
