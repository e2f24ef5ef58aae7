"""How people are told of together: families, birthdays, letters, talks in the street.

The slots are those of `cast.Cast.person`, those of relatives behind `w_` (the spouse), `a_` and `b_` (son and
daughter, or father and mother), and those of somebody else behind `o_`.
"""

from __future__ import annotations

from buddygpt.data.demo.grammar import templates

ELDER_FAMILIES = templates("""
    {n}和{partner}{mate}住在{home}，[膝下|]有一儿一女：[儿子叫{kin1}，女儿叫{kin2}|儿子是{kin1}，女儿是{kin2}]。
    {a_g}{now}在{a_place}[当|做]{a_job}，{b_g}在{b_place}[当|做]{b_job}。[逢年过节|一到周末]，
    {a_g}和{b_g}都回{home}[吃饭|看望父母]，{mateg}[做|端上]一份{food}，那是{g}最爱吃的。
    [席间|饭后]，{a_g}讲{a_place}的[新鲜事|趣事]，{b_g}讲{b_place}的[见闻|事情]，[一家人有说有笑|屋里热热闹闹]。

    {home}住着一对[恩爱|和气]的夫妻，丈夫叫{husband}，妻子叫{wife}。[夫妻俩|两人]有一个儿子{kin1}，一个女儿{kin2}。
    儿子{a_g}娶了{a_mate}，[小两口|两人]住在{a_home}；女儿{b_g}嫁给了{b_mate}，[小两口|两人]住在{b_home}。
    [每天|天天]{n}[去|到]{place}{duty}，{mateg}[去|到]{w_place}{w_duty}，[晚上|吃过晚饭]，
    [老两口|夫妻俩]就[念叨|说起]{a_g}和{b_g}。{more}

    [邻居|街坊]问{n}：“[您|你]家里都有谁？”{g}[掰着指头|想了想]说：“{partner}叫{mate}，儿子叫{kin1}，女儿叫{kin2}。
    {a_g}是{a_place}的{a_job}，{b_g}是{b_place}的{b_job}。”“[他们|孩子们]常回来吗？”“[常回来|每个星期都回来]，”{g}{says}，
    “{a_g}[一进门|一回来]就{a_scene}，{b_g}[爱吃|最爱吃]{b_food}，[他们一来|这样]家里就热闹了。”{more}

    [说起|提起]{kin1}和{kin2}，{home}的人都知道，[他们|]是{n}和{mate}的一双儿女。{a_g}[爱吃|最爱吃]{a_food}，{b_g}[爱吃|最爱吃]{b_food}；
    {a_g}喜欢{a_hobby}，{b_g}喜欢{b_hobby}。两个孩子[性子|脾气]不一样，[对父母的心|孝顺]却是一样的：
    [儿子|{a_g}]给{g}买{good}，[女儿|{b_g}]就给{mateg}买{present}。{more}

    [|{day}]{n}家[要|请人]照相，{partner}{mate}[早早|一早]就[换了|穿上]新衣服。儿子{kin1}[刚|才]从{a_place}下班，还[想着|念着]{a_duty}；女儿{kin2}从{b_place}[赶来|跑来]，[说|只说]{b_duty}[耽误|误]了时间。
    “[站好|坐好]，[看着我|笑一笑]！”[照相的人|师傅]说。{g}[站在|坐在]左边，{mateg}[站在|坐在]右边，{a_g}和{b_g}站在后面。[照片|相片][后来|{now}]挂在{home}的[堂屋|墙上]，
    [来客|客人]一看就[知道|说]：“[这|那]是{a_job}{a_g}，[这|那]是{b_job}{b_g}。”{more}

    {n}[一辈子|这些年]最[得意|骄傲]的，[是|就是]有{kin1}这个儿子、{kin2}这个女儿。{a_g}在{a_place}，{folks}都[夸|说]{g}教子有方；{b_g}在{b_place}，[谁|人人]都[喜欢|称赞]。
    {partner}{mate}却说：“[儿女|孩子]好，[也有|]我[一半功劳|的功劳]。”{g}{says}：“[当然|是啊]，{a_g}爱{a_hobby}[像你|随你]，{b_g}爱{b_hobby}[像我|随我]。”
    [两人|夫妻俩]坐在{home}的[院子里|窗前]，[等着|盼着]孩子们回来吃{food}。{more}

    [|{day}]{kin1}和{kin2}[商量|合计]着给{n}和{mate}[买|添]点[东西|什么]。“[父母|爹妈]住在{home}[这么多年|几十年]了，”{a_g}说，“[缺|少]的是{good}。”“[我看|依我看]缺的是{present}，”{b_g}说。[两个人|儿女俩]争了半天，一个从{a_home}[拿来|带来]{good}，
    一个从{b_home}[拿来|带来]{present}。{g}{says}：“[东西|这些]我都[不要|有]，你们[常|多]回来，[一个|{a_g}]陪我{hobby}，[一个|{b_g}]陪{mateg}{w_hobby}，[就好|比什么都强]。”{more}

    [外人|不熟的人]{often}弄不清[这一家|{n}家]的人：{n}的{partner}是{mate}，儿子是{kin1}，女儿是{kin2}，儿媳是{a_mate}，女婿是{b_mate}。[可是|不过]只要[记住|知道]他们[做什么|在哪儿做事]，就[不会错|分得清]了：
    {g}在{place}，{mateg}在{w_place}，{a_g}在{a_place}，{b_g}在{b_place}。[过年|中秋]时[一家人|大家]坐在{home}[吃饭|说话]，{g}讲{duty}，{mateg}讲{w_duty}，{a_g}讲{a_duty}，{b_g}讲{b_duty}，[谁也插不上嘴|好不热闹]。
""")

YOUNG_FAMILIES = templates("""
    {n}的父亲是{kin1}，母亲是{kin2}。[成家以后|结婚以后]，{who}和{partner}{mate}住在{home}。[星期天|周末]，
    [小两口|夫妻俩]常[带着|提着]一份{a_food}去看望父母，因为{a_g}最爱吃{a_food}。{a_g}[还在|在]{a_place}当{a_job}，
    {b_g}在{b_place}当{b_job}，[忙了一个星期|平时都忙]，[见了面|坐下来]有说不完的话。
    [饭后|茶后]，{a_g}[就|便]{a_scene}，{b_g}[就|便]{b_scene}，{g}和{mateg}[在一旁看着|陪在旁边]。

    {home}有一对年轻夫妻，丈夫叫{husband}，妻子叫{wife}。{n}是{kin1}和{kin2}的{child}，在{place}[当|做]{job}；
    {mate}是{w_kin1}和{w_kin2}的{w_child}，在{w_place}[当|做]{w_job}。[晚上|傍晚]，{g}从{place}回来，{mateg}从{w_place}回来，
    [两人|小两口]一起[吃饭|做饭]：{g}爱吃{food}，{mateg}爱吃{w_food}，[今天做这个，明天做那个|谁也不跟谁争]。{more}

    {n}{often}想起小时候：父亲{kin1}下了班，[就|便]{a_scene}，母亲{kin2}[就|便]{b_scene}，[自己|{p}]坐在一旁[看着|听着]。
    那时{a_g}是{a_place}的{a_job}，{b_g}是{b_place}的{b_job}，[现在|如今]也还是。[现在|如今]{g}自己[也工作了|长大了]，
    在{place}{duty}，[下了班|回到{home}]，[就|便]和{partner}{mate}[一起吃饭|说说笑笑]。{more}

    [|{day}]“[你|您]是谁家的孩子？”[一位|有位]老人问{n}。“我父亲叫{kin1}，母亲叫{kin2}，”{who}[回答|说]。
    “[哦|啊]，{a_g}！[他|]不是在{a_place}{a_duty}的那个{a_job}吗？{b_g}我也认识，[她|]在{b_place}当{b_job}。”[老人|老人家]又问，
    “[结婚|成家]了没有？”“[结了|成家了]，{partner}是{mate}，[我们|我俩]住在{home}。”{g}说。{more}

    [|{day}]{n}和{mate}[成亲|结婚]那天，[四位|两家]老人都来了。{g}的父亲{kin1}[穿着|换上]新衣服，母亲{kin2}[擦着|抹着]眼泪；{mateg}的父亲{w_kin1}[端着|举起]酒杯，母亲{w_kin2}[忙着|笑着]招呼客人。
    [酒席上|桌上]有{food}，也有{w_food}，[一样|头一样]是{g}爱吃的，[一样|另一样]是{mateg}爱吃的。[从那天起|从此]，[小两口|夫妻俩]就在{home}[安了家|住下了]。
    {now}{g}在{place}{duty}，{mateg}在{w_place}{w_duty}，[日子过得|过得]{very}[红火|和美]。{more}

    [|{day}]{mate}第一次到{n}家做客，[心里|不知怎么]{very}紧张。{g}的父亲{kin1}是{a_place}的{a_job}，[问|只问]{mateg}在哪里工作。“在{w_place}，”{mateg}说，“当{w_job}，[每天|天天]{w_duty}。”{g}的母亲{kin2}在{b_place}当{b_job}，[端来|做了]一份{b_food}，
    [问|又问]{mateg}[爱吃|最爱吃]什么。“{w_food}。”[后来|{now}]{g}和{mateg}成了[夫妻|一家人]，住在{home}，{a_g}和{b_g}每次来，[都带着|一定带上]{w_food}。{more}

    {folks}都说，{n}[像|很像]父亲{kin1}，也像母亲{kin2}。[像|随]父亲，是因为{a_g}[做事认真|手脚勤快]，[当|做]{a_job}从不马虎，{g}[当|做]{job}也是这样；[像|随]母亲，是因为{b_g}{often}{b_hobby}，[一天不做就不自在|谁劝也不听]，
    {g}{hobby}[也|同样]入迷。{partner}{mate}{says}：“[那|可是]爱吃{food}[像谁|随谁]呢？”“[谁也不像|这是我自己的]！”{g}{says}。{more}

    [|{day}]{kin1}和{kin2}[来到|走到]{home}看{child}{n}，[偏偏|不巧]{g}还在{place}{duty}，[开门|迎出来]的是{mate}。{mateg}[让|请]{a_g}和{b_g}[坐下|喝茶]，[又|马上]去[做|端]{food}。“[不要忙|别忙了]，”{a_g}说，“[我们|我俩]带了{good}来。”
    {b_g}[逗|看]着{pname}，那{m}{pet}[正|还是]{habit}。[等到|到了]{evening}，{g}[才|总算][回来|下班]，一家人[围着桌子|坐在灯下]，[先|]说{a_place}的[事|变化]，[再|又]说{b_place}的[事|变化]。{more}

    [|{day}]两家[亲家|老人]{often}[在一起|碰到一起]：{n}的父亲{kin1}[拉着|请]{mate}的父亲{w_kin1}{a_hobby}，母亲{kin2}[跟着|请]{mate}的母亲{w_kin2}{b_hobby}。{g}和{mateg}[却|则]在{home}[忙着|准备]饭菜，{food}[是|归]{g}的，{w_food}[是|归]{mateg}的。
    [饭桌上|吃饭时]，[老人们|四位老人]都夸[小两口|他们]：一个[当|做]{job}，一个[当|做]{w_job}，{place}和{w_place}[都|全]少不了他们。{more}
""")

BIRTHDAYS = templates("""
    {bday}是{n}的生日。[一早|这天一早]，{partner}{mate}就[忙着|开始]做{food}，因为{g}最爱吃{food}。
    [中午|傍晚]，{role1}{kin1}来了，[带来|送来]{shop}的{good}；{role2}{kin2}也来了，[带来|送来]{b_food}。
    {mateg}把{food}端上桌，[大家|全家人]一齐说：“祝你生日快乐！”[吃完饭|饭后]，{g}[高兴得|乐得]{scene}，{pname}[也|]在一旁{habit}。

    [翻开|看看]日历，{bday}[又到了|快到了]。[这天|那天]是什么日子？[原来|]是{n}的生日。{role1}{kin1}[问|说]：“[送什么好|送点什么]呢？”
    {role2}{kin2}说：“{p}[喜欢|最喜欢]{hobby}，[送什么也不如|还不如]陪{p}{hobby}。”{partner}{mate}说：“{p}爱吃{food}，我来做一份{food}。”
    [于是|结果]那天，{home}[又有|飘着]{food}的香味，[又有|还有]笑声。{more}

    [在{place}|{place}里]，[同事们|大家]都记得{n}的生日是{bday}。[这一天|那天]，{who}[还像平时一样|照常]{duty}，[同事们|大家]却[悄悄|偷偷]买来了{food}。
    “[祝你生日快乐|生日快乐]，{g}！”{who}[愣住了|又惊又喜]：“[你们怎么知道|谁告诉你们]我爱吃{food}？”“是你{partner}{mate}说的。”
    [晚上|下了班]回到{home}，{role1}{kin1}和{role2}{kin2}也[来了|等着{p}]，[{bday}这天|这个生日]，{g}[笑得合不拢嘴|过得真快活]。

    {n}[小声|悄悄]问{partner}{mate}：“[还记得|你记得]{bday}是什么日子吗？”“[当然记得|怎么会忘]，”{mateg}[笑着|]说，“是你的生日。
    [我早就|我已经]请了{role1}{kin1}、{role2}{kin2}，还请了{friend}{o_n}。”[到了|]{bday}，{o_g}从{o_home}[赶来|过来]，[送来|带来]一份{o_food}，
    {mateg}做了{food}，[屋里|一桌人][热热闹闹|坐得满满的]。{more}

    {role1}{kin1}[早就|一直]记着，{bday}是{n}的生日。[头一天|前一天]，{a_g}[下了班|从{a_place}出来]，[先|就]到{shop}[买|挑]了{good}，[又|再]去找{kin2}商量。“{p}[爱吃|最爱吃]{food}，”{role2}{b_g}说，
    “[我们|咱们]请{mateg}[做一份|多做些]。”[第二天|到了{bday}]，[一家人|大家]在{home}[坐下|坐了一桌]。{mate}端上{food}，{a_g}送上{good}，{b_g}[唱了一支歌|讲了个笑话]，
    {g}[笑得|乐得][像个孩子|合不拢嘴]。{more}

    {friend}{o_n}和{n}[谈起|说起]生日。“[我的|我]是{o_bday}，[你呢|你是哪天]？”{o_g}{asks}。“{bday}，”{g}{says}，“[每年|年年]那天，{partner}{mate}都做{food}。”“{o_bday}[那天|]，我家[吃|做]{o_food}。”{o_g}说，
    “[你生日|{bday}]我来[看|找]你，我生日你来[看|找]我，[怎么样|好吗]？”“[好|行]，我家在{home}，[你家|你]在{o_home}，[走几步|不远]就到。”两人[说定了|约好了]。{more}
""")

LETTERS = templates("""
    {n}给{role1}{kin1}写了一封信：“{call1}，[近来|最近]身体好吗？我还在{place}当{job}，[每天|天天]{duty}，[不算太累|忙得很充实]。
    {partner}{mateg}也很好，[前几天|昨天]还[念叨|提起]{you}。{pname}[还是老样子|一点没变]，{often}{habit}。
    [到了|等到]{bday}我过生日，[请|盼]{you}来{home}[住几天|吃饭]，[我们|我和{mateg}]做{food}给{you}吃。”

    “{call1}：[信收到了|来信收到]。{you}问我[过得好不好|近来忙什么]，[我|]还不是老样子：[白天|上班]在{place}{duty}，
    [下了班|晚上]回{home}，{scene}。{you}[问起|惦记]的那{m}{pet}，{pname}，[现在|如今]又[胖了|大了]一圈，{often}{habit}。
    {partner}{mate}[叫我|让我]问{you}好。[别忘了|记得]{bday}是我的生日，[早点来|一定来]。”[这是|写信的是]{n}，[收信的|读信的]是{role1}{kin1}。{more}

    [邮递员|送信的]把一封信[交给{kin1}|送到{kin1}手里]，信是{as}{n}写来的。信上说：“{call1}，我在{place}[一切都好|过得很好]，[当|做]{job}[虽然忙|虽说累]，
    但{duty}[很有意思|我做惯了]。我和{mate}[想|打算]请{you}和{call2}来{home}吃{food}。”{a_g}[读完|看完]信，[连忙|赶紧]告诉{kin2}：
    “{called}[来信|写信]了，请我们[到|去]{home}吃{food}呢！”{more}

    “{call1}、{call2}：[你们|二位]好！{place}[近来|最近]{very}忙，我[每天|天天]{duty}，[抽不出身|没有空]去看你们。{mate}[替|陪]我[买了|挑了]{good}，[托人|让人]带给你们。
    [家里|]那{m}{pet}{pname}[长胖了|很听话]，{often}{habit}。[不忙|闲]的时候，我还是{scene}，[你们|]别[笑我|担心]。{bday}我过生日，{home}的门[开着|给你们开着]，{food}也[做好了|备好了]，[一定要来|等你们]。
    {g}[写于{home}|上]。”[收到|读着]{n}的信，{kin1}和{kin2}[都笑了|看了一遍又一遍]。{more}

    {kin1}[收到|接到]{n}的信，[戴上眼镜|坐在窗前][读起来|慢慢读]：“{call1}，{you}好吗？{once}，我和{mateg}[说起|谈到]{you}，[想起|记得]{you}最爱吃{a_food}，[下次|过几天]我[带|做]一份来。
    我[自己|]还是[爱|喜欢]{food}，还是在{place}{duty}。{you}[还|]{a_hobby}吗？我[天天|照旧]{hobby}。”{a_g}[读完|看完]，[对|跟]{kin2}说：“{called}在{home}[过得不错|一切都好]。”{more}

    [|{day}]{n}[坐在|伏在][灯下|窗前]给{role1}{kin1}写信。[写什么好呢|从哪里写起呢]？[写|先写]{place}，[写|再写]{duty}的[辛苦|快活]；[写|又写]{home}，[写|再写]{mate}做的{food}；[最后|末了]写到{pname}，“这{m}{pet}{often}{habit}，[逗人笑|真有趣]”。
    [信的末尾|最后一行]是：“{call1}，{bday}[别忘了|记得]来，[我等着|我们等]{you}。”{mate}[看了|读了]信，[补|添]上一句：“[也请|还请]{kin2}一起来。”{more}
""")

TALKS = templates("""
    [|{day}][傍晚|午后]，{n}在[路上|桥头|树下]遇见了{friend}{o_n}。“[下班了|忙完了]？”{o_g}{asks}。“[刚从|才从]{place}回来，”{g}[回答|说]，
    “[今天|]一直在{duty}。你呢？”“我在{o_place}{o_duty}，[当|做]{o_job}也[不轻松|一样忙]。”[说着说着|正说着|没说几句|话没说完]，
    {g}想起{pname}还没喂，那{m}{pet}[一饿|饿了]就[乱叫|不安生]，[连忙|赶紧]和{o_g}道别，回{home}去了。{more}

    [|{day}]“[星期天|后天]一起{hobby}，好不好？”{n}[问{friend}{o_n}|对{friend}{o_n}说]。“[可惜|不巧]我[要去|得去]{o_place}[上班|值班]，”{o_g}说，“[再说|而且]我[喜欢|爱]的是{o_hobby}。”
    “[那|]{o_hobby}[也好|也行]，”{g}{says}，“[等你|你]有空，[我们|咱们]先{hobby}，再{o_hobby}，[完了|晚上]到{home}[来吃|吃]{food}。”
    “[一言为定|好]！”{o_g}[答应了|笑了]，“{food}是你爱吃的，我[更|]爱吃{o_food}。”“[那就|好]，{o_food}也做！”{g}说。{more}

    {n}和{o_n}是[多年的|要好的]朋友，[见了面|在一起]总要[说上几句|聊一会儿]。{g}在{place}当{job}，说的是{duty}的事；{o_g}在{o_place}当{o_job}，
    说的是{o_duty}的事。{once}{o_g}问：“[你家|你养]的{pet}叫什么来着？”“{pname}，”{g}{says}，“[你家|你养]的呢？”
    “叫{o_pname}，是一{o_m}{o_pet}。”[从此|从那以后]，{o_g}[见到|看见]{g}，先问{pname}好不好。{more}

    [报纸上|报上|墙报上]写着{n}的[故事|事迹]：“{g}，家住{home}，{place}{job}，[多年来|一直][认认真真|勤勤恳恳]{duty}。{friend}{o_n}说，
    {g}[从不迟到|没请过一天假]。问{p}有什么[爱好|喜好]，{p}说：‘{hobby}。’”{partner}{mate}[读到这里|看了报]，笑[着说|道]：
    “[怎么没写|他们忘了写]你[爱吃|最爱吃]{food}？”{more}

    [|{day}]{place}[对面|旁边]的[小吃摊|饭摊]上，{n}[碰见|遇到]了{friend}{o_n}。“[来一份|要一份]{food}吧？”{o_g}{asks}，“我知道你[爱吃|喜欢]。”“[你|你自己]呢？”“我[要|吃]{o_food}。”两人[一边吃一边聊|边吃边聊]，
    {g}[讲|说]{duty}[多么|怎么][费神|有趣]，{o_g}[讲|说]{o_duty}[多么|怎么][辛苦|有趣]。[吃完了|最后]，{g}[要|得]回{place}，{o_g}[要|得]回{o_place}，
    [分手|走]时[约好|说好]{free}一起{hobby}。{more}

    [|{day}]{o_n}[从|特地从]{o_home}[来|到]{home}看{friend}{n}，[一进门|刚进门]就看见{g}在[忙着|摆弄]{hobby}的东西。“[你|你呀]，[一天到晚|除了{duty}]就是{hobby}。”{o_g}{says}。
    “[你|你自己]不也是[整天|一天到晚]{o_hobby}吗？”{g}[不服气|回了一句]。{mate}[端来|递上]{food}：“[别争了|好了好了]，{hobby}也好，{o_hobby}也好，[先|都先]吃{food}！”
    {pname}[也|]在一旁{habit}，[好像|仿佛]在[听他们说话|笑]。{more}

    [|{day}]“{g}，[听说|他们说]你[又|]当上先进了？”{friend}{o_n}[拦住|叫住]{n}{asks}。“[哪里|没有的事]，我[还是|不过是]{place}的{job}，[天天|照旧]{duty}。[倒是你|你呢]？”“我[在|还在]{o_place}{o_duty}，[也|]没什么[新鲜|变化]。”
    “[那|]{o_pname}呢？[上回|上次]我看见那{o_m}{o_pet}{o_habit}。”{g}{says}。“{o_pname}[好得很|胖了]，[你的|你家]{pname}呢？”“[一样|也好]，{often}{habit}。”[两人|说到这里，两人]都[笑了|乐了]。{more}

    [|{day}]{o_n}[不认识|第一次到]{home}，[一路|见人就]打听{friend}{n}家。“{g}？[那个|就是]{job}吗？”[卖菜的|扫街的|修鞋的]人{asks}。“对，在{place}{duty}的那位。”“[前面|再走几步]，[听见|看见]{pet}的那家就是，那{m}{pet}叫{pname}。”[到了门口|走到跟前]，{o_g}{really}看见{pname}正{habit}。
    {mate}[迎出来|开了门]：“[你是|您是]{o_place}的{o_g}吧？{g}{often}[说起|提到]你，说你[爱吃|喜欢]{o_food}。”{more}

    [|{day}]{place}和{o_place}[赛|比赛]拔河，{n}[站在|排在]这边第一个，{friend}{o_n}[站在|排在]那边第一个。[赛前|哨子没响]，{g}[喊|说]：“{o_g}，{o_duty}你行，拔河[你不行|可不一定]！”{o_g}[也喊|回答]：“{g}，[等会儿|待会儿][别哭|别怨人]，还是回去{duty}吧！”
    [比完了|赛后]，两人[又|还是]有说有笑，[一同|一起]去吃{food}和{o_food}，[约好|说定]{free}一个教{hobby}，一个教{o_hobby}。{more}
""")
