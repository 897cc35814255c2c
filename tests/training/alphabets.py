"""Two labels and a text of each in many scripts, written for these tests; the encodings are those that files of the script are found in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Script:
    columns: tuple[str, str]
    """Of text and label."""
    rows: tuple[tuple[str, str], tuple[str, str]]
    """Text and label."""
    encodings: tuple[str, ...] = ()
    """Besides those of Unicode."""

    @property
    def labels(self) -> list[str]:
        return [label for _, label in self.rows]


ALPHABETS = {
    "Chinese": Script(("文本", "标签"), (("包裹到哪里了？", "物流"), ("我想退款，谢谢。", "退款")), ("gbk", "gb18030")),
    "traditional Chinese": Script(("文字", "標籤"), (("發票開錯了", "帳單"), ("密碼忘記了", "帳戶")), ("big5",)),
    "Japanese": Script(
        ("本文", "ラベル"), (("荷物はまだ届きません。", "配送"), ("ﾊﾟｽﾜｰﾄﾞを忘れた", "お問い合わせ")), ("shift_jis", "cp932", "euc-jp")
    ),
    "Korean": Script(("본문", "라벨"), (("택배가 아직 안 왔어요", "배송 문의"), ("환불해 주세요", "환불")), ("euc-kr", "cp949")),
    "Arabic": Script(("النص", "التصنيف"), (("أين طردي؟", "الشحن"), ("أريد استرداد المبلغ", "الفواتير")), ("windows-1256",)),
    "Hebrew": Script(("טקסט", "תווית"), (("איפה החבילה שלי?", "משלוח"), ("אני רוצה החזר", "החזר"))),
    "Hindi": Script(("पाठ", "लेबल"), (("मेरा पार्सल कहाँ है?", "डिलीवरी"), ("मुझे पैसे वापस चाहिए", "वापसी"))),
    "Thai": Script(("ข้อความ", "ป้าย"), (("พัสดุอยู่ที่ไหน", "จัดส่ง"), ("ขอเงินคืน", "คืนเงิน"))),
    "Russian": Script(("текст", "метка"), (("Где моя посылка?", "доставка"), ("Верните деньги", "возврат")), ("koi8-r", "windows-1251", "cp866")),
    "Turkish": Script(("metin", "etiket"), (("Kargom nerede, şaşırdım", "İade"), ("ığüşöç", "ısı")), ("windows-1254", "iso-8859-9")),
    "emoji": Script(("💬", "🏷️"), (("👍🏽 great 👩‍👩‍👧", "😀"), ("👎 awful 🏳️‍🌈", "😡"))),
}  # fmt: skip
