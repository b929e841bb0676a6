"""Captions that tokenizers disagree about, all different; none holds a line break."""

# `¦` and line ends separate captions. In this order: contractions, split words, brackets, dots, abbreviations, numbers,
# currencies, quotes, joined words, addresses, scripts, spaces.
TEXT = """\
the airport's runway isn't long¦the boats' port .¦We can't see it , it won't fit .¦'tis a port .¦'Twas a field
rock 'n' roll¦five o'clock shadows¦they're we've I'll he'd I'm¦y'all d'ye more'n¦DON'T¦the port's¦the ports'
James' house¦the boat\u2019s port isn\u2019t big¦a 'em b¦pier 's¦pier 'll¦the 90's¦the '90s¦ma'am¦rock'n'roll
it`s a port
We cannot see it .¦You gonna wanna gotta gimme lemme see .¦CANNOT¦Gonna¦a cannot , b .¦cannots wannabe dunno
cannot.¦Cannot
buildings (white) near [a] {river} .¦( )¦[]¦{ { } }¦((a))¦a port (¦) a port¦-LRB- a -RRB-¦-lrb- -lcb- -lsb-
a <b> </b> c¦a<b> &amp; c¦a < b > c¦1) a 2) b¦(1) a¦<br/> a¦\u300ca\u300d¦a port :)¦a port :-)¦;D¦<3¦-> => <-
.¦ .¦ . ¦..¦...¦....¦. .¦. . .¦a port . .¦a port ..¦a port...¦end.¦a . b¦a.b¦a.b.c¦.a¦a side\u2026¦a . . . b¦?!
! ! !¦, , ,¦; : - --¦1 .¦is it ? yes ! ; : - -- ...
trees, roads, etc.¦trees, etc. and roads¦trees etc .¦etc.¦etc..¦the U.S.¦U.S. port and St. Mary church .
a port in the U.S.A. .¦the N.Y. port¦Main St.¦St. Mary¦in Dec.¦in Dec. 2020¦Dec .¦5 p.m.¦5 p.m. light¦Mr.
Mr. Big's port¦No. 5¦No.¦i.e. a port , e.g. this¦vs. port¦Acme Inc.¦pier A.¦pier . B.¦pier a--b.¦a Ph.D. port
approx. ten¦5 sq. km.¦a port,with two boats .¦a port, with two boats .¦a port ,with two boats .
20 planes, 3.5 acres and 1/2 of it¦1,000 cars¦1,000,000.5¦half \u00bd a¦1\u00bd¦the 20th¦1st 2nd¦-5¦+5 degrees
1:1000¦10:30¦555-1234¦(555) 555-1234¦2020-01-02¦12/31/99¦.5¦5.¦1 1/2¦1.2.3¦10'6¦5" wide¦2x3¦2 x 3 m\u00b2¦10km
90\u00b0¦F-16 and A380¦1\\/2¦1990s
$5.00¦US$5¦$ 5¦\u20ac5¦5\u20ac¦\u00a33 \u00a55 \u00a21¦5%¦5 %¦#1 & @you¦a $ sign¦C$
a "terminal" with a 'round' roof¦\u201ca port\u201d¦\u2018a port\u2019¦"a 'b' c"¦''¦``a''¦` a '¦\u00aba port\u00bb
\u201ea port\u201c¦"¦' '¦a " b¦say "it".¦\u2039a\u203a
a,b-c¦a ,b-c¦a-b,c¦a, b-c¦x-y's,z-w¦cannot-x cannot's¦a-'s¦a-b-¦a's-b¦a-b's's
two-storey buildings in a T-shaped area .¦and/or¦a_b¦a - b¦a -- b¦a--b¦a---b¦a \u2013 b\u2014c¦-a¦a-
pre- and post-war¦a\\b¦a|b ~ c ^ d¦a*b¦** a **¦a+b=c¦AT&T¦R&D¦C++ C#¦Yahoo!¦__¦a / b¦\u2015 \u2212 \u2010
see http://port.org¦https://a.b/c?d=e&f=g#h¦www.port.com .¦me@port.org¦#port #20¦@pilot¦a.jpg¦.NET¦NWPU_1.jpg
file:///a/b¦a&nbsp;b¦&lt;b&gt; &#39;¦&amp;¦10.0.0.1
caf\u00e9 on the na\u00efve side¦cafe\u0301¦\u00c9COLE¦\u6e2f\u53e3¦a \u6e2f b¦\u3053\u3093
\u0645\u064a\u0646\u0627\u0621¦\u043f\u043e\u0440\u0442 .¦\u03a9 \u00b5m¦\u0130stanbul¦stra\u00dfe¦\ufb01eld
\u212a¦\U0001f600¦a\U0001f600b¦\U0001f468\u200d\U0001f469¦\U0001f1f9\U0001f1f7¦\U0001d400¦\u2122 \u00a9 \u00ae
\u2192 \u2713 \u2022 a¦\u00d7 \u00f7 \u00b1¦\ue000¦\ufffd¦\uffff
a\u200bport¦a\u200b port .¦a\u00a0port¦\ufeffa port¦so\u00adft¦a\u3000port¦a\u2009port¦a\u202fport¦a\u0085port
a tab\there¦\t¦  two  spaces ¦ a port .¦a port  .¦a\0b¦a\x01b¦a\x1bb¦a\x7fb¦a\x1cb¦\u200b¦\u00a0
"""
LONG = ["x" * 20_000, "ab " * 3_000, "a-" * 500, "1" * 300, "A PORT WITH BOATS .", "ALLCAPS McArthur iPhone"]
HARD = [*(caption for line in TEXT.split("\n") for caption in line.split("¦")), *LONG]  # "" is one of them
