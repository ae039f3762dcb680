//! Patterns of `tokenizer.json` match as in Python's `tokenizers`, that is, as in Oniguruma.

use serde_json::json;
use tightrope_data::Tokenizer;

use crate::common::write;

#[test]
fn patterns_split_as_in_python() {
    // pre_tokenizers.Split(Regex(pattern), "isolated").pre_tokenize_str(text) of tokenizers 0.23.3
    let cases: [(&str, &str, &[&str]); 16] = [
        (r"^\w+", "ab cd\nef gh", &["ab", " cd\n", "ef", " gh"]),
        (r"\w+$", "ab cd\nef gh", &["ab ", "cd", "\nef ", "gh"]),
        (r"\p{N}{1,3}+", "1234567 12", &["1234567", " ", "12"]),
        (r"\p{N}{2}+", "12345", &["1234", "5"]),
        (r"\w+", "a\u{200d}b c", &["a", "\u{200d}", "b", " ", "c"]),
        (r"\R", "a\r\nb\nc", &["a", "\r\n", "b", "\n", "c"]),
        (r"\h+", "face zoo", &["face", " zoo"]),
        (r"[a-z&&[^aeiou]]+", "abcde", &["a", "bcd", "e"]),
        (r"(?<!x)y", "xy zy", &["xy z", "y"]),
        (r"\X", "e\u{301}a", &["e\u{301}", "a"]),
        (r"a.b", "a\nb acb", &["a\nb ", "acb"]),
        (r"(?m)a.b", "a\nb", &["a\nb"]),
        (r"\Z", "ab\n", &["ab", "\n"]),
        (r"(?i)straße", "STRASSE", &["STRASSE"]),
        (r"[[:punct:]]+", "a$+b.", &["a", "$+", "b", "."]),
        (r"\s+(?!\S)|\s+", "a   b  ", &["a", "  ", " ", "b", "  "]),
    ];
    for (pattern, text, wanted) in cases {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = json!({
            "version": "1.0",
            "added_tokens": [],
            "pre_tokenizer": {
                "type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false,
            },
            "model": {"type": "WordLevel", "vocab": {"?": 0}, "unk_token": "?"},
        });
        write(folder.path(), "tokenizer.json", tokenizer.to_string());
        let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
        let tokens = tokenizer.encode_with_offsets(text).unwrap();
        let pieces: Vec<&str> = tokens.into_iter().map(|token| &text[token.bytes]).collect();
        assert_eq!(pieces, wanted, "{pattern}");
    }
}
