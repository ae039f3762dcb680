//! Shows sequences with trained and untrained text distinguished by color, or by brackets.

use crate::terminal::printable;
use console::Style;
use tightrope_data::InspectedToken;

/// Explains the output of [`paint`].
pub(crate) fn legend(color: bool) -> String {
    match color {
        true => format!(
            "{} is trained, {} is only read",
            trained("this"),
            untrained("this")
        ),
        false => "[[this]] is trained, this is only read".to_owned(),
    }
}

/// Text of the tokens, with line ends marked by `⏎`.
pub(crate) fn paint(tokens: &[InspectedToken], color: bool) -> String {
    let mut painted = String::new();
    for run in tokens.chunk_by(|a, b| a.trained == b.trained) {
        let text: String = run.iter().map(|token| visible(&token.text)).collect();
        painted += &match (color, run[0].trained) {
            (true, true) => each_line(&text, trained),
            (true, false) => each_line(&text, untrained),
            (false, true) => format!("[[{text}]]"),
            (false, false) => text,
        };
    }
    painted
}

fn trained(text: &str) -> String {
    Style::new()
        .green()
        .bold()
        .force_styling(true)
        .apply_to(text)
        .to_string()
}

fn untrained(text: &str) -> String {
    Style::new()
        .blue()
        .force_styling(true)
        .apply_to(text)
        .to_string()
}

/// Each line gets its own color, because pagers lose colors at line ends.
fn each_line(text: &str, style: fn(&str) -> String) -> String {
    let lines: Vec<String> = text
        .split('\n')
        .map(|line| {
            if line.is_empty() {
                String::new()
            } else {
                style(line)
            }
        })
        .collect();
    lines.join("\n")
}

/// The same text with line ends marked.
fn visible(text: &str) -> String {
    printable(text).replace('\n', "⏎\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Vec<InspectedToken> {
        [
            ("Q:", false),
            (" 2+2\n", false),
            ("4", true),
            ("<e>", true),
            ("\n", false),
        ]
        .map(|(text, trained)| InspectedToken {
            id: 7,
            text: text.to_owned(),
            trained,
        })
        .into()
    }

    #[test]
    fn brackets_stand_around_each_trained_run() {
        assert_eq!(paint(&tokens(), false), "Q: 2+2⏎\n[[4<e>]]⏎\n");
    }

    #[test]
    fn colors_differ_and_change_nothing_else() {
        let painted = paint(&tokens(), true);
        assert_eq!(console::strip_ansi_codes(&painted), "Q: 2+2⏎\n4<e>⏎\n");
        assert!(painted.contains(&trained("4<e>")) && painted.contains(&untrained("Q: 2+2⏎")));
        assert_ne!(trained("x"), untrained("x"));
    }

    #[test]
    fn data_cannot_talk_to_the_terminal() {
        assert_eq!(
            visible("a\x1b[31m\u{7}한글\tb\u{202e}"),
            "a\\u{1b}[31m\\u{7}한글\tb\\u{202e}"
        );
    }
}
