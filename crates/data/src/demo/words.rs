//! Words of the demonstration's questions.

/// English and Korean words, sorted by the first letter of the English word.
pub(super) const WORDS: [(&str, &str); 24] = [
    ("apple", "사과"),
    ("bread", "빵"),
    ("cloud", "구름"),
    ("dog", "개"),
    ("egg", "달걀"),
    ("flower", "꽃"),
    ("grape", "포도"),
    ("house", "집"),
    ("island", "섬"),
    ("juice", "주스"),
    ("king", "왕"),
    ("lake", "호수"),
    ("moon", "달"),
    ("night", "밤"),
    ("ocean", "바다"),
    ("pencil", "연필"),
    ("queen", "여왕"),
    ("river", "강"),
    ("snow", "눈"),
    ("tree", "나무"),
    ("uncle", "삼촌"),
    ("village", "마을"),
    ("water", "물"),
    ("year", "해"),
];

pub(super) const WEEKDAYS: [(&str, &str); 7] = [
    ("Monday", "월요일"),
    ("Tuesday", "화요일"),
    ("Wednesday", "수요일"),
    ("Thursday", "목요일"),
    ("Friday", "금요일"),
    ("Saturday", "토요일"),
    ("Sunday", "일요일"),
];

pub(super) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

pub(super) const NAMES: [(&str, &str); 12] = [
    ("Anna", "민준"),
    ("Ben", "서연"),
    ("Clara", "지호"),
    ("David", "하은"),
    ("Emma", "도윤"),
    ("Felix", "수아"),
    ("Grace", "은우"),
    ("Hugo", "지우"),
    ("Iris", "시우"),
    ("Jonas", "예린"),
    ("Kate", "준서"),
    ("Leo", "나은"),
];

pub(super) const CITIES: [(&str, &str); 8] = [
    ("Seoul", "서울"),
    ("Busan", "부산"),
    ("Paris", "파리"),
    ("London", "런던"),
    ("Rome", "로마"),
    ("Berlin", "베를린"),
    ("Madrid", "마드리드"),
    ("Oslo", "오슬로"),
];

/// Sentences of a story that do not contain an answer.
pub(super) const FILLER: [(&str, &str); 6] = [
    ("The weather was fine that day.", "그날은 날씨가 좋았다."),
    ("Nobody was in a hurry.", "아무도 서두르지 않았다."),
    (
        "A bird sang in the old tree.",
        "오래된 나무에서 새가 노래했다.",
    ),
    (
        "It was almost time for dinner.",
        "거의 저녁 먹을 시간이었다.",
    ),
    (
        "The street was quiet and empty.",
        "거리는 조용하고 비어 있었다.",
    ),
    (
        "They talked for a long time.",
        "그들은 오랫동안 이야기했다.",
    ),
];

const ONES: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 10] = [
    "", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety",
];
const DIGITS: [&str; 10] = ["영", "일", "이", "삼", "사", "오", "육", "칠", "팔", "구"];

/// A number below 100 in English words.
pub(super) fn english(n: usize) -> String {
    match (n / 10, n % 10) {
        (0 | 1, _) => ONES[n].to_owned(),
        (tens, 0) => TENS[tens].to_owned(),
        (tens, ones) => format!("{}-{}", TENS[tens], ONES[ones]),
    }
}

/// A number below 100 in Sino-Korean words.
pub(super) fn korean(n: usize) -> String {
    let tens = match n / 10 {
        0 => return DIGITS[n].to_owned(),
        1 => "십".to_owned(),
        tens => format!("{}십", DIGITS[tens]),
    };
    match n % 10 {
        0 => tens,
        ones => tens + DIGITS[ones],
    }
}
