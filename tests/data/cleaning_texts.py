"""Invented texts that cleaning must keep or leave out, in Chinese and English: name, reason or None, text."""
# ruff: noqa: E501  (each text on one line)

from __future__ import annotations

SOUP = "先把番茄切成小块，锅里放一点油，等油热了再下鸡蛋。鸡蛋炒散以后盛出来，接着炒番茄，炒到出汁。"
RAIN = "昨天夜里下了一场大雨，村口的小桥被水漫过，孩子们只好绕远路去上学。老师早早站在校门口，一个一个地数人头。"
STREET = "镇上的邮局在老街的尽头，门前有一棵很老的槐树。邮递员每天上午把信送到各家，下午就坐在树下修他的自行车。"
HARBOUR = (
    "The harbour was quiet that morning, and the only sound came from the ropes against the masts. "
    "An old man mended his net on the steps. He had done it every day for forty years, and he did not look up."
)
GARDEN = (
    "We moved the tomatoes to the south wall because the soil there is warmer in spring. "
    "It took three of us most of an afternoon, but the plants have doubled in size since then."
)
CODE = """# 读取配置

程序启动时先读配置文件，再打开日志。如果文件不存在，就用默认值，并且在日志里写一行说明。

```python
def load(path: Path) -> Config:
    if not path.exists():
        return Config()
    with path.open(encoding="utf-8") as file:
        return Config(**json.load(file))
```

| 字段 | 含义 | 默认 |
| --- | --- | --- |
| `level` | 日志级别 | `info` |
| `rows` | 一次读多少行 | `512` |

注意：路径是相对于工作目录的，不是相对于配置文件的。
"""
MARKUP = """# Reading rows

Call `read_rows` with the name of a file and the columns that you need:

```python
for number, row in read_rows(path, "a.jsonl", ["text"]):
    if row.get("text"):
        print(number, len(row["text"]))
```

- A row that is not an object is counted and left out.
- The number starts at 1, so that an editor finds the line.
"""
KEYWORDS = (
    "贴片电容 贴片电阻 功率电感 稳压二极管 三极管 场效应管 集成电路 连接器 继电器 温度传感器 压力传感器 晶振 保险丝 "
    "开关电源 变压器 电位器 端子排 散热片 接线柱 示波器 万用表 热风枪 电烙铁 焊锡丝 洗板水 防静电手环 镊子 放大镜 "
    "工业相机 步进电机 伺服驱动 触摸屏 光纤跳线 网线钳 交换机 机柜 理线架 配线箱"
)
ENGLISH_KEYWORDS = " ".join(
    f"{colour} {thing}"
    for colour in ("red", "blue", "black", "white", "cheap", "used")
    for thing in "running shoes,leather boots,winter jacket,silk scarf,travel bag,sun hat,wool socks,rain coat".split(
        ","
    )
)
SPOKEN = (
    "然后我们就说那个事情吧其实当时谁都没有想到会变成这样因为大家都觉得只是一个很小的问题后来慢慢地就越来越多人来问"
    "我说你们不要急我先去看一下到底是怎么回事结果到了那边一看原来是门口的水管坏了水一直往外流旁边的人都在那里等着修"
    "我就打电话给师傅师傅说他在路上了让我再等半个小时我说好那我就等吧等了快一个小时他才来修了一会儿就好了大家都很高兴"
    "后来我们还一起吃了一顿饭聊了很多以前的事情觉得时间过得真快所以说远亲不如近邻有什么事情大家帮一帮就过去了"
)

GOOD = (
    ("story", RAIN + STREET),
    ("short answer", "一年有多少天？\n平年有三百六十五天，闰年多一天，有三百六十六天。"),
    ("verse", "小桥流水人家静，一夜春风到柳边。\n不问归舟何处泊，月明应照旧时船。\n山前几树梅花白，且把新茶对客煎。"),
    ("unpunctuated verse", "\n".join("我把灯放在窗台上,等一封很慢的信,雨在屋檐下数着日子,风从北边来,带着麦子的气味,你说过今年会回来".split(","))),
    ("refrain", "月儿弯弯照山岗，谁家姑娘在梳妆。\n摇啊摇，摇到桥那边。\n河水清清向东流，哥哥撑船到渡头。\n摇啊摇，摇到桥那边。\n桥那边有外婆家，门前种着白菊花。"),
    ("classical prose", "昔有渔者，居于江上，日得鱼数尾，易米以归。或问其何不多取，渔者曰：吾取之有时，而江不竭；若尽取之，则明日何食？闻者叹服而去。"),
    ("traditional script", "那年冬天特別冷，河面結了厚厚的冰。我和弟弟拿著木板從坡上滑下來，摔了一身的雪，母親站在門口笑著叫我們回家吃飯。"),
    ("recipe with figures", "面粉500克，水260毫升，酵母5克，盐8克。揉成团以后在28度的地方放60分钟，等它胀到两倍大，再分成4份，烤25分钟就好了。"),
    (
        "news about gambling",
        "警方近日通报了一起网络赌博案。办案人员介绍，嫌疑人在境外搭建平台，以百家乐、老虎机等方式吸引玩家，半年内流水超过两亿元。"
        "警方提醒，所谓“稳赚不赔”的说法都是骗局，参与赌博不但会损失钱财，还要承担法律责任。目前案件正在进一步审理之中。",
    ),
    (
        "article with a contact",
        RAIN + STREET + "学校从下周起开放图书馆，村民也可以来借书，每次两本，期限一个月。"
        "需要办借书证的，请带身份证到传达室登记。开放时间是周一到周五的下午，节假日另行通知。咨询电话：0571-87654321。",
    ),
    ("chinese with code", CODE),
    ("dialogue", "甲：你明天去不去赶集？\n乙：去啊，我要买两只小鸡。\n甲：那我跟你一起去，我家的锄头坏了。\n乙：好，天一亮就走，路上还能看日出。"),
    ("chinese with english terms", "这个函数用 hash table 保存结果，所以 lookup 的时间是常数。不过 hash 冲突多的时候会退化，这时可以换成 balanced tree。"),
    ("emoji chat", "今天终于爬到山顶啦😀🎉！虽然腿酸得要命，但是看到云海的那一刻觉得一切都值得。下次我们叫上小王一起来吧👍🏻。"),
    ("list of steps", "\n".join(f"{i}. {s}" for i, s in enumerate(("关掉电源，等两分钟。", "拧下后盖上的四颗螺丝。", "把旧电池取出来。", "装上新电池，注意正负极。", "盖好后盖，再打开电源。"), 1))),
    ("english story", HARBOUR + " " + GARDEN),
    ("english readme", MARKUP),
    ("english short answer", "How many legs does a spider have?\nA spider has eight legs."),
    ("english review", "Bought this kettle two years ago and it still works. The lid is a little stiff, though. Free shipping was a nice surprise."),
    ("english arithmetic", "Add 12 and 30 to get 42, then divide the sum by 6. The result is 7, which is a prime number, so the answer is yes."),
    ("borrowed accents", "The café owner, a naïve Málaga poet, kept a résumé on the wall. His fiancée thought it was a cliché, and told him so."),
    ("a word of japanese", RAIN + "日本朋友说，这叫“ゆっくり”，意思是慢慢来。" + STREET),
)  # fmt: skip

BAD = (
    ("nothing but a title", "too short", "第三章 归途"),
    ("english word", "too short", "Read on"),
    ("gbk mojibake", "mojibake", (RAIN + STREET).encode().decode("gbk", "replace")),
    ("latin mojibake", "mojibake", RAIN.encode().decode("latin-1")),
    ("gbk as latin", "mojibake", RAIN.encode("gbk").decode("latin-1")),
    ("lost bytes", "mojibake", RAIN.encode("gbk").decode("utf-8", "replace") + STREET),
    ("japanese", "language", "昨日の夜に大雨が降って、村の橋が水に沈みました。子どもたちは遠回りをして学校へ行きました。先生は門の前で待っていました。"),
    ("korean", "language", "어젯밤에 큰비가 내려서 마을 다리가 물에 잠겼다. 아이들은 먼 길로 돌아서 학교에 갔다. 선생님이 문 앞에서 기다렸다."),
    ("russian", "language", "Вчера ночью прошёл сильный дождь, и мост у деревни залило. Детям пришлось идти в школу дальней дорогой."),
    ("arabic", "language", "هطل المطر بغزارة ليلة أمس وغمر الماء جسر القرية، فذهب الأطفال إلى المدرسة من طريق بعيد."),
    ("hindi", "language", "कल रात तेज़ बारिश हुई और गाँव का पुल पानी में डूब गया। बच्चे लंबे रास्ते से स्कूल गए।"),
    ("french", "no function words", ("La nuit dernière, il a beaucoup plu et le petit pont du village a disparu sous l'eau. Les enfants ont pris un autre chemin pour aller à l'école. " * 2 + "Le facteur répare son vélo sous un vieil arbre, devant la poste, pendant que les voisins discutent sur la place. Personne ne sait quand la route sera ouverte, mais tout le monde attend sans se plaindre.")),
    ("placeholder latin", "no function words", "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore et dolore magna aliqua. Ut enim ad minim veniam, quis nostrud exercitation ullamco laboris nisi ut aliquip ex ea commodo consequat. Duis aute irure dolor in reprehenderit in voluptate velit esse cillum dolore eu fugiat nulla pariatur. Excepteur sint occaecat cupidatat non proident, sunt in culpa qui officia deserunt mollit anim id est laborum. Curabitur pretium tincidunt lacus, nulla gravida orci a odio, nullam varius turpis et commodo pharetra, est eros bibendum elit, nec luctus magna felis sollicitudin mauris."),
    ("keyword list", "no function words", KEYWORDS),
    ("keyword list with commas", "no function words", KEYWORDS.replace(" ", "，")),
    ("english keyword list", "no function words", ENGLISH_KEYWORDS),
    ("gambling page", "advertising", "澳门新葡京娱乐城官方网址，真人荷官在线发牌，百家乐、老虎机、体育投注应有尽有。注册就送88元彩金，天天返水，点击进入最新网址，提款三分钟到账，信誉第一。"),
    ("invoices", "advertising", "本公司长期代开发票，各行各业均可办理，先办后付款，量大从优。诚信经营，真票可查。联系电话：13800001234，微信同号，加微信详谈。"),
    ("forged papers", "advertising", "专业办证刻章办理各类学历，假文凭高仿真，全国包邮。有需要的朋友加QQ：123456789，微信号：abc123456，长期有效，不成功不收费。"),
    ("part-time bait", "advertising", "在家就能做的手机兼职日结，日赚三百元不是梦，月入过万的姐妹大有人在。名额有限，想做的加我微信：zhuanqian888，免费咨询。"),
    ("essays", "advertising", "论文代写找我们，十年经验，本科硕士都能做，包过查重。代写论文价格低，先办后付，咨询QQ 3344556677，不满意全额退款。"),
    ("casino", "advertising", "Play the best online casino games tonight! Get free spins and a no deposit bonus on all slot machines, poker and more. Sign up now and hit the jackpot. Click here to claim your prize."),
    ("pills", "advertising", "Buy now: cheap generic Viagra and Cialis without prescription, best prices on the web, free shipping worldwide. Order now and save, money back if you are not happy with the pills."),
    ("page printed thrice", "repeated lines", "\n".join([RAIN, STREET, SOUP] * 3)),
    ("repeated footer", "repeated lines", "\n".join(f"{line}\n请勿在未经允许的情况下复制本站的任何内容。" for line in (RAIN[:24], STREET[:24], SOUP[:24], HARBOUR[:50]))),
    ("one sentence again and again", "repeated n-grams", "这家店的服务真的很好我们全家都非常喜欢，" * 12),
    ("english sentence again and again", "repeated n-grams", "This is the best shop in town and we have been coming here for years with the kids. " * 8),
    ("copy within one line", "repeated n-grams", RAIN + STREET + RAIN + STREET),
    ("stuffed phrase", "common n-gram", "".join(f"{place}二手车，" for place in "石桥 柳河 白塔 青山 南湖 东坡 西渡 北岭 中原 平安 古城 新港".split()) + "看这里就对了。"),
    ("laughter", "common n-gram", "房间非常大，比照片上的还要大得多，" + "哈" * 14),
    ("stars", "symbols", "★★★★★★ 夏季大促销 ★★★★★★\n◆◆◆ 全场五折起 ◆◆◆ 买一送一 ◆◆◆\n●●●●●● 机会难得不要错过哦 ●●●●●●"),
    ("drawn table", "symbols", "+------+------+------+\n| name | size | kind |\n+======+======+======+\n| left | four | note |\n+------+------+------+"),
    ("exclamation", "punctuation", "我上个星期买的那本书为什么到现在还没有收到啊！！！！！！！！！！！！！！！？？？？？？？？？？？？？？？？？？？？？？？？"),
    ("dots", "punctuation", "Well...... I do not know...... maybe...... we will see...... or not...... who cares......" + "." * 60),
    ("speech without marks", "no punctuation", SPOKEN),
    ("winning numbers", "digits", "第2023001期 03 08 15 22 27 31 09\n第2023002期 01 04 11 19 25 33 12\n第2023003期 06 07 14 20 28 30 02\n第2023004期 02 09 13 17 26 32 15\n往期号码一览表供各位参考使用请留意"),
    ("menu", "short lines", "\n".join("首页 公司简介 新闻动态 产品中心 成功案例 人才招聘 在线留言 联系我们 企业文化 资质荣誉 售后服务 下载中心".split())),
    ("english menu", "short lines", "\n".join("Home,About,Products,News,Blog,Careers,Contact,Support,Login,Sitemap,Events,Team".split(","))),
    ("teasers", "ellipsis lines", "\n".join(f"{head}……" for head in ("昨天夜里下了一场大雨，村口的小桥", "镇上的邮局在老街的尽头，门前", "先把番茄切成小块，锅里放一点油", "那年冬天特别冷，河面结了厚厚的", "孩子们只好绕远路去上学，老师早早"))),
)  # fmt: skip
