//! Splits PTX text into tokens, each with its line.
use crate::PtxError;

/// One token. A dotted name such as `ld.global.v4.f32` or `%tid.x` is one word.
#[derive(Clone, PartialEq, Debug)]
pub enum Token {
    /// Names, directives (leading dot) and dotted mnemonics.
    Word(String),
    /// An integer literal; negative numbers are a `-` and a literal.
    Integer(u64),
    /// `0fXXXXXXXX`: the bits of an `f32`.
    Float32(u32),
    /// `0dXXXXXXXXXXXXXXXX` or a decimal: the bits of an `f64`.
    Float64(u64),
    /// Text between quotation marks.
    Text(String),
    /// Any single punctuation character.
    Mark(char),
}

fn is_word_start(c: char) -> bool {
    c.is_ascii_alphabetic() || matches!(c, '_' | '$' | '%' | '.')
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '%' | '.')
}

/// All tokens of `source` with their lines (counted from 1).
pub fn tokens(source: &str) -> Result<Vec<(Token, u32)>, PtxError> {
    let text: Vec<char> = source.chars().collect();
    let at = |i: usize| text.get(i).copied().unwrap_or('\0');
    let (mut i, mut line, mut out) = (0, 1u32, Vec::new());
    while i < text.len() {
        let c = text[i];
        if c == '\n' {
            line += 1;
            i += 1;
        } else if c.is_whitespace() {
            i += 1;
        } else if c == '/' && at(i + 1) == '/' {
            while i < text.len() && text[i] != '\n' {
                i += 1;
            }
        } else if c == '/' && at(i + 1) == '*' {
            let start = line;
            i += 2;
            while !(at(i) == '*' && at(i + 1) == '/') {
                if i >= text.len() {
                    return Err(PtxError::new(start, "comment without end"));
                }
                line += u32::from(text[i] == '\n');
                i += 1;
            }
            i += 2;
        } else if c == '"' {
            let start = i + 1;
            i = start;
            while at(i) != '"' {
                if i >= text.len() || text[i] == '\n' {
                    return Err(PtxError::new(line, "text without closing quotation mark"));
                }
                i += 1;
            }
            out.push((Token::Text(text[start..i].iter().collect()), line));
            i += 1;
        } else if is_word_start(c) {
            let start = i;
            // `shared::cta` is part of the word, `label:` is not.
            while is_word(at(i)) || (at(i) == ':' && at(i + 1) == ':' && is_word_start(at(i + 2))) {
                i += if at(i) == ':' { 2 } else { 1 };
            }
            out.push((Token::Word(text[start..i].iter().collect()), line));
        } else if c.is_ascii_digit() {
            let start = i;
            while at(i).is_ascii_alphanumeric() || (at(i) == '.' && at(i + 1).is_ascii_digit()) {
                i += 1;
            }
            let literal: String = text[start..i].iter().collect();
            out.push((number(&literal, line)?, line));
        } else {
            out.push((Token::Mark(c), line));
            i += 1;
        }
    }
    Ok(out)
}

fn number(literal: &str, line: u32) -> Result<Token, PtxError> {
    let bad = || PtxError::new(line, format!("`{literal}` is no number"));
    let lower = literal.to_ascii_lowercase();
    if let Some(hex) = lower.strip_prefix("0f") {
        return u32::from_str_radix(hex, 16)
            .map(Token::Float32)
            .map_err(|_| bad());
    }
    if let Some(hex) = lower.strip_prefix("0d") {
        return u64::from_str_radix(hex, 16)
            .map(Token::Float64)
            .map_err(|_| bad());
    }
    if lower.contains('.') {
        return lower
            .parse::<f64>()
            .map(|v| Token::Float64(v.to_bits()))
            .map_err(|_| bad());
    }
    let digits = lower.strip_suffix('u').unwrap_or(&lower);
    let value = if let Some(hex) = digits.strip_prefix("0x") {
        u64::from_str_radix(hex, 16)
    } else if let Some(binary) = digits.strip_prefix("0b") {
        u64::from_str_radix(binary, 2)
    } else if digits.len() > 1 && digits.starts_with('0') {
        u64::from_str_radix(&digits[1..], 8)
    } else {
        digits.parse()
    };
    value.map(Token::Integer).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(source: &str) -> Vec<Token> {
        tokens(source)
            .unwrap()
            .into_iter()
            .map(|(t, _)| t)
            .collect()
    }

    #[test]
    fn words_keep_their_dots_and_double_colons() {
        assert_eq!(
            kinds("L1: ld.shared::cta.u32 %tid.x;"),
            [
                Token::Word("L1".into()),
                Token::Mark(':'),
                Token::Word("ld.shared::cta.u32".into()),
                Token::Word("%tid.x".into()),
                Token::Mark(';')
            ]
        );
    }

    #[test]
    fn numbers_in_every_notation() {
        assert_eq!(
            kinds("0f3F800000 0dBFF0000000000000 0x1F 017 12 7U 0b101"),
            [
                Token::Float32(0x3f80_0000),
                Token::Float64(0xbff0_0000_0000_0000),
                Token::Integer(31),
                Token::Integer(15),
                Token::Integer(12),
                Token::Integer(7),
                Token::Integer(5)
            ]
        );
    }

    #[test]
    fn comments_count_lines() {
        let all = tokens("// a\n/* b\n c */ x").unwrap();
        assert_eq!(all, [(Token::Word("x".into()), 3)]);
    }

    #[test]
    fn errors_name_the_line() {
        assert_eq!(tokens("\n 0xZZ").unwrap_err().line, 2);
        assert_eq!(tokens("\n\n\"open").unwrap_err().line, 3);
        assert_eq!(tokens("\n/* open").unwrap_err().line, 2);
    }
}
