"""What people and their animals may be called. Every given name has two characters and occurs once."""

from buddygpt.data.demo.grammar import words

CLAN_SURNAMES = tuple("王李张刘陈杨赵黄周吴徐孙胡朱林何郭罗")
"""Six of these name the families that the town consists of."""

OTHER_SURNAMES = (*"梁宋郑谢韩唐冯董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶", "欧阳", "司马", "上官", "诸葛")
"""Surnames of the women who married into a family in the older generation."""

ELDER_MEN = words(
    "建国 国强 志明 德福 永康 文斌 长顺 家旺 福生 学军 卫东 光华 玉林 振华 保田 海山 树森 庆丰 "
    "广田 立新 延年 守义 宝山 传文 兆祥 运来 茂林 新民 正清 春生 洪亮 士杰 仲达 喜贵"
)
ELDER_WOMEN = words(
    "淑芬 秀英 桂兰 玉梅 春花 凤霞 月娥 惠珍 美华 丽娟 爱莲 素云 兰芳 彩霞 翠萍 玉珍 金凤 秋菊 "
    "冬梅 巧云 红英 雅琴 慧敏 佩芳 瑞芝 香莲 银环 宝珠 静芳 莲香 桂珍 素贞 亚男 云秀"
)
YOUNG_MEN = words(
    "浩然 子轩 思远 明轩 俊杰 天宇 博文 志远 晓峰 嘉树 一鸣 泽宇 文昊 鹏飞 睿哲 立诚 景行 书航 "
    "承志 乐山 云帆 致远 伟航 旭东 亦凡 少华 启明 润东 子墨 修远 怀瑾 宇轩 家骏 振宇"
)
YOUNG_WOMEN = words(
    "雨桐 思琪 佳怡 梦瑶 晓雯 诗涵 若曦 欣妍 静怡 可欣 婉清 雪莹 语嫣 紫萱 心怡 安琪 依诺 清妍 "
    "芷若 梓晴 韵寒 采薇 乐怡 念慈 初晴 书瑶 知夏 映雪 海棠 月盈 曼青 舒窈 嘉宁 逸云"
)

PET_NAMES = words(
    "豆豆 团团 毛毛 雪球 阿黄 小黑 芝麻 汤圆 花生 布丁 可乐 饭团 豆包 年糕 糯米 土豆 栗子 核桃 "
    "石榴 柚子 奶糖 麻薯 点点 球球 皮皮 乐乐 小灰 墨墨 胖胖 妞妞 虎子 来福 旺财 元宝 铜钱 阿福 "
    "米粒 棉花 小满 冬瓜 辣椒 油条 酥饼 阿毛 石头 闪电 朵朵 铃铛 灰灰 阿呆"
)

TOWNS = words("青石镇 柳河镇 白云镇 清溪镇 松林镇 月湖镇 桃源镇 双桥镇 云山镇 长亭镇 梅岭镇 枫桥镇")
