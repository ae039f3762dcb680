//! Variables around a macro or call block that it reads.

use std::collections::BTreeSet;

use super::scan::{Edit, Token};

/// The open macros and call blocks, the innermost last.
///
/// The engine passes the variables that it finds in their text. It does not find variables that are
/// sliced, set from themselves, or given to a filter block, so all variables are named where the
/// text begins.
#[derive(Default)]
pub(super) struct Macros<'a>(Vec<Open<'a>>);

struct Open<'a> {
    /// End of the first tag.
    at: usize,
    reads: BTreeSet<&'a str>,
}

impl<'a> Macros<'a> {
    /// Opens a macro or block whose first tag ends here.
    pub(super) fn begin(&mut self, at: usize) {
        let reads = BTreeSet::new();
        self.0.push(Open { at, reads });
    }

    /// Records the variables of a tag; returns an error with the words that no macro supports.
    pub(super) fn read(&mut self, tokens: &[Token<'a>]) -> Result<(), String> {
        const WORDS: [&str; 8] = ["and", "else", "if", "in", "is", "not", "or", "recursive"];
        let text = |index: Option<usize>| index.and_then(|i| tokens.get(i)).map_or("", |t| t.text);
        let Some(open) = self.0.last_mut() else {
            return Ok(());
        };
        for (index, token) in tokens.iter().enumerate() {
            let before = text(index.checked_sub(1));
            let is_test = before == "not" && text(index.checked_sub(2)) == "is";
            let is_name = token
                .text
                .starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
            if !is_name
                || is_test
                || [".", "|", "is"].contains(&before)
                || WORDS.contains(&token.text)
            {
                continue;
            }
            if ["varargs", "kwargs"].contains(&token.text) {
                return Err(format!("`{}` of a macro does not exist here", token.text));
            }
            open.reads.insert(token.text);
        }
        Ok(())
    }

    /// Closes the innermost one.
    pub(super) fn end(&mut self) -> Option<Edit> {
        let Open { at, reads } = self.0.pop()?;
        if reads.is_empty() {
            return None;
        }
        let reads = reads.into_iter().collect::<Vec<_>>().join(", ");
        let text = format!("%}}{{% if false %}}{{{{ [{reads}] }}}}{{% endif ");
        Some(Edit::insert(at, text))
    }
}

#[cfg(test)]
mod tests {
    use crate::template::scan::prepare;

    #[test]
    fn a_macro_names_what_it_reads() {
        for (source, expected) in [
            (
                "{% macro m(a=b[:1]) -%}{{ a | f(c.d[1:]) is not e }}{%- endmacro %}{{ g }}",
                "{% macro m(a=b[:1]) %}{% if false %}{{ [a, b, c, m] }}{% endif -%}\
                 {{ a | f(c.d[1:]) is not e }}{%- endmacro %}{{ g }}",
            ),
            (
                "{% call m() %}{% macro k() %}{{ a[:1] }}{% endmacro %}{% endcall %}",
                "{% call m() %}{% if false %}{{ [m] }}{% endif %}{% macro k() %}\
                 {% if false %}{{ [a, k] }}{% endif %}{{ a[:1] }}{% endmacro %}{% endcall %}",
            ),
        ] {
            assert_eq!(prepare(source).ok().unwrap().text, expected);
        }
    }
}
