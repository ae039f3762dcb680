//! Generates the question and answer of each task.

use super::random::Random;
use super::words::{CITIES, FILLER, MONTHS, NAMES, WEEKDAYS, WORDS, english, korean};
use super::{Language, Record, Task};

/// Question and answer.
type Pair = (String, String);

/// One record, whose length is drawn from a log-normal distribution.
pub(super) fn record(random: &mut Random) -> Record {
    let language = match random.below(2) {
        0 => Language::English,
        _ => Language::Korean,
    };
    // The median is about 42 tokens with the template; the few records beyond 620 are cut there.
    let length = (42.0 * (0.9 * random.normal()).exp()).min(620.0) as usize;
    let task = match length {
        0..54 => SHORT[random.below(SHORT.len())],
        54..84 => MIDDLE[random.below(MIDDLE.len())],
        _ => LONG[random.below(LONG.len())],
    };
    let say = Say { language };
    let (question, answer) = match task {
        Task::Add => add(say, random),
        Task::Compare => compare(say, random),
        Task::ReadNumber => number(say, random, true),
        Task::WriteNumber => number(say, random, false),
        Task::Weekday => weekday(say, random),
        Task::Month => month(say, random),
        Task::Translate => translate(say, random),
        Task::Letters => letters(say, random),
        Task::Sort => words(say, random, true),
        Task::Reverse => words(say, random, false),
        Task::Count => count(say, random, length),
        Task::Table => table(say, random, length),
        Task::Recite => recite(say, random),
        Task::Lookup => lookup(say, random, length),
        Task::Story => story(say, random, length),
    };
    Record {
        task,
        language,
        question,
        answer,
    }
}

const SHORT: [Task; 8] = [
    Task::Add,
    Task::Compare,
    Task::ReadNumber,
    Task::WriteNumber,
    Task::Weekday,
    Task::Month,
    Task::Translate,
    Task::Letters,
];
const MIDDLE: [Task; 5] = [
    Task::Sort,
    Task::Reverse,
    Task::Count,
    Task::Recite,
    Task::Table,
];
const LONG: [Task; 4] = [Task::Count, Task::Table, Task::Lookup, Task::Story];

/// Texts in one of the languages.
#[derive(Clone, Copy)]
struct Say {
    language: Language,
}

impl Say {
    fn of(self, pair: (&'static str, &'static str)) -> &'static str {
        match self.language {
            Language::English => pair.0,
            Language::Korean => pair.1,
        }
    }

    fn all(self, pairs: &[(&'static str, &'static str)]) -> Vec<&'static str> {
        pairs.iter().map(|&pair| self.of(pair)).collect()
    }

    /// One of the ways to ask, with `{a}` and `{b}` filled in.
    fn ask(
        self,
        random: &mut Random,
        ways: &[(&'static str, &'static str)],
        a: &str,
        b: &str,
    ) -> String {
        let way = self.of(ways[random.below(ways.len())]);
        way.replace("{a}", a).replace("{b}", b)
    }
}

fn add(say: Say, random: &mut Random) -> Pair {
    let (a, b) = (random.below(10), random.below(10));
    let ways = [
        ("What is {a} + {b}?", "{a} + {b}의 답은?"),
        ("Add {a} and {b}.", "{a} 더하기 {b}의 답은?"),
        ("{a} plus {b} makes what?", "{a}, {b} 두 수의 합은?"),
        (
            "Give the sum of {a} and {b}.",
            "두 수 {a}, {b}의 합을 구하세요.",
        ),
    ];
    let question = say.ask(random, &ways, &a.to_string(), &b.to_string());
    (question, (a + b).to_string())
}

fn compare(say: Say, random: &mut Random) -> Pair {
    let a = random.below(100);
    let b = (a + 1 + random.below(99)) % 100;
    let ways = [
        ("Which is larger, {a} or {b}?", "{a}, {b} 중 큰 수는?"),
        (
            "Give the greater of {a} and {b}.",
            "{a}, {b} 가운데 더 큰 수를 말하세요.",
        ),
    ];
    let question = say.ask(random, &ways, &a.to_string(), &b.to_string());
    (question, a.max(b).to_string())
}

fn number(say: Say, random: &mut Random, read: bool) -> Pair {
    let n = random.below(100);
    let words = match say.language {
        Language::English => english(n),
        Language::Korean => korean(n),
    };
    let (given, answer) = match read {
        true => (words, n.to_string()),
        false => (n.to_string(), words),
    };
    let ways = match read {
        true => [
            ("Write {a} in digits.", "{a}, 숫자로 쓰면?"),
            ("Which number is {a}?", "다음 수를 숫자로 쓰세요: {a}"),
        ],
        false => [
            ("Write {a} in words.", "{a}, 한글로 쓰면?"),
            ("How do you say {a}?", "다음 수를 한글로 쓰세요: {a}"),
        ],
    };
    (say.ask(random, &ways, &given, ""), answer)
}

fn weekday(say: Say, random: &mut Random) -> Pair {
    let days = say.all(&WEEKDAYS);
    let (today, later) = (random.below(7), random.between(2, 9));
    let ways = [
        (
            "Today is {a}. Which day is it in {b} days?",
            "오늘은 {a}입니다. {b}일 뒤는 무슨 요일입니까?",
        ),
        (
            "It is {a}. What day will it be {b} days later?",
            "{a}에서 {b}일이 지나면 무슨 요일입니까?",
        ),
    ];
    let question = say.ask(random, &ways, days[today], &later.to_string());
    (question, days[(today + later) % 7].to_owned())
}

fn month(say: Say, random: &mut Random) -> Pair {
    let (now, later) = (random.below(12), random.between(2, 11));
    let name = |month: usize| match say.language {
        Language::English => MONTHS[month % 12].to_owned(),
        Language::Korean => format!("{}월", month % 12 + 1),
    };
    let ways = [
        (
            "It is {a}. Which month is it in {b} months?",
            "지금은 {a}입니다. {b}달 뒤는 몇 월입니까?",
        ),
        (
            "Which month comes {b} months after {a}?",
            "{a}에서 {b}달이 지나면 몇 월입니까?",
        ),
    ];
    let question = say.ask(random, &ways, &name(now), &later.to_string());
    (question, name(now + later))
}

fn translate(say: Say, random: &mut Random) -> Pair {
    let (en, ko) = WORDS[random.below(WORDS.len())];
    let to_korean = [
        ("What is {a} in Korean?", "단어 {a}, 한국어로 무엇입니까?"),
        ("Translate into Korean: {a}", "한국어로 옮기세요: {a}"),
        ("Say {a} in Korean.", "영어로 {a}, 한국어로는?"),
    ];
    let to_english = [
        ("What is {a} in English?", "단어 {a}, 영어로 무엇입니까?"),
        ("Translate into English: {a}", "영어로 옮기세요: {a}"),
        ("Say {a} in English.", "한국어로 {a}, 영어로는?"),
    ];
    match random.below(2) {
        0 => (say.ask(random, &to_korean, en, ""), ko.to_owned()),
        _ => (say.ask(random, &to_english, ko, ""), en.to_owned()),
    }
}

fn letters(say: Say, random: &mut Random) -> Pair {
    let (word, _) = WORDS[random.below(WORDS.len())];
    let ways = [
        ("How many letters has {a}?", "영어 단어 {a}, 글자 수는?"),
        (
            "Count the letters of {a}.",
            "단어 {a} 에는 글자가 몇 개입니까?",
        ),
        (
            "The word {a} has how many letters?",
            "단어 {a}, 글자 수를 세세요.",
        ),
    ];
    (say.ask(random, &ways, word, ""), word.len().to_string())
}

fn words(say: Say, random: &mut Random, sort: bool) -> Pair {
    let english: Vec<&str> = WORDS.iter().map(|w| w.0).collect();
    let n = random.between(2, 4);
    let mut words = random.sample(&english, n);
    let given = words.join(", ");
    let ways = match sort {
        true => [
            ("Sort these words: {a}", "알파벳 순서로 쓰세요: {a}"),
            (
                "Put in alphabetical order: {a}",
                "다음 단어를 정렬하세요: {a}",
            ),
        ],
        false => [
            ("Reverse this list: {a}", "거꾸로 쓰세요: {a}"),
            ("Write from last to first: {a}", "뒤에서부터 쓰세요: {a}"),
        ],
    };
    match sort {
        true => words.sort_unstable(),
        false => words.reverse(),
    }
    (say.ask(random, &ways, &given, ""), words.join(", "))
}

/// Number of items for about `length` tokens, with `each` tokens per item.
fn fitting(length: usize, each: usize, low: usize, high: usize) -> usize {
    (length.saturating_sub(30) / each).clamp(low, high)
}

fn count(say: Say, random: &mut Random, length: usize) -> Pair {
    let n = fitting(length, 3, 4, 90);
    let from = random.below(100 - n);
    let numbers: Vec<String> = (from..from + n).map(|x| x.to_string()).collect();
    let ways = [
        ("Count from {a} to {b}.", "{a} 에서 {b} 까지 세세요."),
        (
            "Write all numbers from {a} to {b}.",
            "{a} 부터 {b} 까지 모두 쓰세요.",
        ),
    ];
    let question = say.ask(
        random,
        &ways,
        &from.to_string(),
        &(from + n - 1).to_string(),
    );
    (question, numbers.join(" "))
}

/// Whole tables, one after the other, for 2 to 9.
fn table(say: Say, random: &mut Random, length: usize) -> Pair {
    let n = fitting(length, 72, 1, 8);
    let first = random.between(2, 10 - n);
    let line = |k: usize| (2..=9).map(move |i| format!("{k} x {i} = {}", k * i));
    let lines: Vec<String> = (first..first + n).flat_map(line).collect();
    let one = [
        ("Write the table of {a}.", "{a} 단을 쓰세요."),
        ("Multiply {a} by 2 to 9.", "{a} 에 2부터 9까지 곱하세요."),
    ];
    let several = [
        (
            "Write the tables of {a} to {b}.",
            "{a} 단부터 {b} 단까지 쓰세요.",
        ),
        (
            "Multiply {a} to {b} by 2 to 9.",
            "{a} 부터 {b} 까지, 2부터 9까지 곱하세요.",
        ),
    ];
    let ways = if n == 1 { &one } else { &several };
    let last = first + n - 1;
    let question = say.ask(random, ways, &first.to_string(), &last.to_string());
    (question, lines.join("\n"))
}

/// From three to seven days.
fn recite(say: Say, random: &mut Random) -> Pair {
    let days = say.all(&WEEKDAYS);
    let (first, n) = (random.below(7), random.between(3, 7));
    let list: Vec<&str> = (first..first + n).map(|i| days[i % 7]).collect();
    let ways = [
        (
            "List the weekdays from {a} to {b}.",
            "{a} 부터 {b} 까지 요일을 차례로 쓰세요.",
        ),
        (
            "Name all days, {a} to {b}.",
            "{a} 에서 {b} 까지 요일 이름을 말하세요.",
        ),
    ];
    let question = say.ask(random, &ways, days[first], list[n - 1]);
    (question, list.join(" "))
}

fn lookup(say: Say, random: &mut Random, length: usize) -> Pair {
    let names = say.all(&NAMES);
    let rows = random.sample(&names, fitting(length, 11, 2, names.len()));
    let cities = say.all(&CITIES);
    let mut question = say
        .of(("| name | city | age |\n", "| 이름 | 도시 | 나이 |\n"))
        .to_owned();
    let asked = random.below(rows.len());
    let by_city = random.below(2) == 0;
    let mut answer = String::new();
    for (index, name) in rows.iter().enumerate() {
        let (city, age) = (random.pick(&cities), random.between(10, 79).to_string());
        question += &format!("| {name} | {city} | {age} |\n");
        if index == asked {
            answer = if by_city { city.to_owned() } else { age };
        }
    }
    let ways = match by_city {
        true => [("Where does {a} live?", "{a}, 어느 도시에 삽니까?")],
        false => [("How old is {a}?", "{a}, 몇 살입니까?")],
    };
    question += &say.ask(random, &ways, rows[asked], "");
    (question, answer)
}

fn story(say: Say, random: &mut Random, length: usize) -> Pair {
    let names = say.all(&NAMES);
    let people = random.sample(&names, fitting(length, 26, 1, names.len()));
    let (words, filler) = (say.all(&WORDS), say.all(&FILLER));
    let asked = random.below(people.len());
    let (mut question, mut answer) = (String::new(), "");
    for (index, name) in people.iter().enumerate() {
        let word = random.pick(&words);
        let facts = [
            ("{a} drew a picture: {b}. ", "{a}의 그림: {b}. "),
            ("{a} chose a word: {b}. ", "{a}의 단어: {b}. "),
        ];
        question += &say.ask(random, &facts, name, word);
        for _ in 0..random.below(4) {
            question += random.pick(&filler);
            question.push(' ');
        }
        if index == asked {
            answer = word;
        }
    }
    let ways = [
        ("What belongs to {a}?", "{a}의 것은 무엇입니까?"),
        ("Which word goes with {a}?", "{a}에게 맞는 단어는?"),
    ];
    question += &say.ask(random, &ways, people[asked], "");
    (question, answer.to_owned())
}
