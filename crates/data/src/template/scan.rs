//! Reads a template's tags before the engine does: it refuses tags that are too long, and rewrites
//! constructs that the engine does not know.

use super::{limits, macros::Macros, operands};

/// A template in the form for the engine.
pub(super) struct Prepared {
    pub text: String,
    /// Whether the template has `{% generation %}` blocks.
    pub marks_generation: bool,
    /// Whether the template reads an attribute that is a method of Python's dictionaries, without
    /// calling it.
    pub reads_methods: bool,
}

/// Error of a template that is too large, nests too deeply or needs an unsupported feature.
pub(super) struct Refusal {
    /// Line, from 1.
    pub line: usize,
    pub message: String,
}

/// The filter of generation blocks, and its name in the context. Variables set in such a block stay
/// in it, as in jinja2; a call block would not see everything around it.
pub(super) const GENERATION: &str = "__generation__";
/// Name of the function that converts dictionaries in the template's own text.
pub(super) const DICTIONARY: &str = "__dictionary__";
/// Name of the function for a value with parts before it becomes a variable.
pub(super) const BOUNDED: &str = "__bounded__";
/// Name of the function for a value before it is stored in a namespace, which outlives loops.
pub(super) const KEPT: &str = "__kept__";

/// Name of the function for a value before the engine walks all of it.
pub(super) const MEASURED: &str = "__measured__";
/// Name of the function that makes text of an operand of `~`.
pub(super) const TEXT: &str = "__text__";

/// Attributes that every Python dictionary has.
pub(super) const METHODS: [&str; 11] = [
    "clear",
    "copy",
    "fromkeys",
    "get",
    "items",
    "keys",
    "pop",
    "popitem",
    "setdefault",
    "update",
    "values",
];

/// Marks generation blocks, bounds the values of `set`, and gives dictionaries Python's attributes
/// if the difference could be seen.
///
/// The tags are read like the engine's own lexer reads them. At an error, reading ends and the
/// engine reports it.
pub(super) fn prepare(source: &str) -> Result<Prepared, Refusal> {
    if source.len() > limits::TEMPLATE_BYTES {
        return Err(Refusal {
            line: 1,
            message: format!(
                "{} bytes; a chat template may have {}",
                source.len(),
                limits::TEMPLATE_BYTES
            ),
        });
    }
    let mut scanner = Scanner {
        source,
        at: 0,
        balance: 0,
        branches: 0,
        edits: Vec::new(),
        macros: Macros::default(),
        dictionaries: Vec::new(),
        marks_generation: false,
        reads_methods: false,
    };
    while scanner.next_tag()? {}
    let mut edits = scanner.edits;
    if scanner.reads_methods {
        edits.extend(scanner.dictionaries);
    }
    Ok(Prepared {
        text: edited(source, edits),
        marks_generation: scanner.marks_generation,
        reads_methods: scanner.reads_methods,
    })
}

/// Text that replaces a few bytes.
pub(super) struct Edit {
    at: usize,
    removed: usize,
    text: String,
}

impl Edit {
    pub(super) fn insert(at: usize, text: String) -> Self {
        let removed = 0;
        Self { at, removed, text }
    }
}

fn edited(source: &str, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|edit| edit.at);
    let mut out = String::with_capacity(source.len() + 32 * edits.len());
    let mut done = 0;
    for edit in edits {
        out.push_str(&source[done..edit.at]);
        out.push_str(&edit.text);
        done = edit.at + edit.removed;
    }
    out.push_str(&source[done..]);
    out
}

struct Scanner<'a> {
    source: &'a str,
    at: usize,
    /// Number of open brackets of any kind; the engine counts from tag to tag.
    balance: isize,
    branches: usize,
    edits: Vec<Edit>,
    macros: Macros<'a>,
    /// Edits that are applied only to a template that reads methods.
    dictionaries: Vec<Edit>,
    marks_generation: bool,
    reads_methods: bool,
}

/// A word, a number, a string or an operator of a tag, with its place.
#[derive(Clone, Copy)]
pub(super) struct Token<'a> {
    pub at: usize,
    pub text: &'a str,
}

impl<'a> Scanner<'a> {
    /// Reads up to the end of the next tag or comment; returns whether more may follow.
    fn next_tag(&mut self) -> Result<bool, Refusal> {
        let rest = &self.source[self.at..];
        let starts = rest.match_indices('{').find_map(|(at, _)| {
            let kind = *rest.as_bytes().get(at + 1)?;
            matches!(kind, b'{' | b'%' | b'#').then_some((at, kind))
        });
        let Some((start, kind)) = starts else {
            return Ok(false);
        };
        self.at += start + 2;
        let trims = self.source[self.at..].starts_with(['-', '+']);
        self.at += usize::from(trims);
        if kind == b'#' {
            return Ok(self.skip_past("#}"));
        }
        if kind == b'%'
            && let Some(after) = basic_tag(&self.source[self.at..], "raw")
        {
            self.at += after;
            return Ok(self.skip_raw());
        }
        let Some((tokens, end)) = self.tokens(if kind == b'%' { "%}" } else { "}}" })? else {
            return Ok(false);
        };
        self.dictionaries(&tokens);
        let is_statement = kind == b'%';
        let first = tokens.first().filter(|_| is_statement).map(|t| t.text);
        if matches!(first, Some("macro" | "call")) {
            self.macros.begin(end);
        }
        let read = self.macros.read(&tokens[usize::from(first.is_some())..]);
        read.map_err(|message| self.refusal(message))?;
        self.edits.extend(operands::edits(&tokens, kind == b'%'));
        if kind == b'%' {
            self.statement(&tokens, end)?;
        }
        Ok(true)
    }

    fn skip_past(&mut self, end: &str) -> bool {
        let found = self.source[self.at..].find(end);
        if let Some(at) = found {
            self.at += at + end.len();
        }
        found.is_some()
    }

    fn skip_raw(&mut self) -> bool {
        while self.skip_past("{%") {
            let rest = &self.source[self.at..];
            if let Some(after) = basic_tag(rest.strip_prefix(['-', '+']).unwrap_or(rest), "endraw")
            {
                self.at += after + usize::from(rest.starts_with(['-', '+']));
                return true;
            }
        }
        false
    }

    /// Tokens of a tag and the end of its own text; `None` if the engine will find an error.
    fn tokens(&mut self, end: &str) -> Result<Option<(Vec<Token<'a>>, usize)>, Refusal> {
        let mut tokens = Vec::new();
        loop {
            let rest = &self.source[self.at..];
            let rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace());
            self.at = self.source.len() - rest.len();
            let Some(first) = rest.chars().next() else {
                return Ok(None);
            };
            if self.balance == 0 {
                let unsigned = rest.strip_prefix(['-', '+']).unwrap_or(rest);
                if unsigned.starts_with(end) {
                    let stop = self.at;
                    self.at += rest.len() - unsigned.len() + end.len();
                    return Ok(Some((tokens, stop)));
                }
            }
            let length = match first {
                '\'' | '"' => match string(rest) {
                    Some(length) => length,
                    None => return Ok(None),
                },
                c if c.is_ascii_alphanumeric() || c == '_' => rest
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .unwrap_or(rest.len()),
                _ if ["//", "**", "==", "!=", ">=", "<="]
                    .contains(&rest.get(..2).unwrap_or("")) =>
                {
                    2
                }
                c if "+-*/%.,:~|=><([{}])".contains(c) => 1,
                _ => return Ok(None),
            };
            match first {
                '(' | '[' | '{' => self.balance += 1,
                ')' | ']' | '}' => self.balance -= 1,
                _ => {}
            }
            tokens.push(Token {
                at: self.at,
                text: &rest[..length],
            });
            if tokens.len() > limits::TAG_TOKENS {
                return Err(self.refusal(format!(
                    "a tag of more than {} words and operators",
                    limits::TAG_TOKENS
                )));
            }
            self.at += length;
        }
    }

    fn refusal(&self, message: String) -> Refusal {
        Refusal {
            line: 1 + self.source[..self.at].matches('\n').count(),
            message,
        }
    }

    fn dictionaries(&mut self, tokens: &[Token<'a>]) {
        for (index, token) in tokens.iter().enumerate() {
            let text = match token.text {
                "{" => format!("{DICTIONARY}({{"),
                "}" => "})".to_owned(),
                name => {
                    let text = |index: usize| tokens.get(index).map(|t| t.text);
                    self.reads_methods |= METHODS.contains(&name)
                        && index > 0
                        && text(index - 1) == Some(".")
                        && text(index + 1) != Some("(");
                    continue;
                }
            };
            self.dictionaries.push(Edit {
                at: token.at,
                removed: 1,
                text,
            });
        }
    }

    fn statement(&mut self, tokens: &[Token<'a>], end: usize) -> Result<(), Refusal> {
        let Some(first) = tokens.first() else {
            return Ok(());
        };
        let whole = |text: String| Edit {
            at: first.at,
            removed: first.text.len(),
            text,
        };
        match first.text {
            "generation" if tokens.len() == 1 => {
                self.marks_generation = true;
                self.edits
                    .push(whole(format!("with %}}{{% filter {GENERATION}")));
            }
            "endgeneration" if tokens.len() == 1 => {
                self.edits.push(whole("endfilter %}{% endwith".to_owned()));
            }
            "elif" => {
                self.branches += 1;
                if self.branches > limits::BRANCHES {
                    let message = format!("more than {} `elif` branches", limits::BRANCHES);
                    return Err(self.refusal(message));
                }
            }
            "set" => self.set(&tokens[1..], end),
            // Variables set in such a block stay in it.
            "filter" => self.edits.push(Edit::insert(end, "%}{% with ".to_owned())),
            "endset" | "endfilter" => {
                self.edits
                    .push(whole(format!("endwith %}}{{% {}", first.text)));
            }
            "endmacro" | "endcall" => self.edits.extend(self.macros.end()),
            _ => {}
        }
        Ok(())
    }

    /// Bounds the value of `set`: always if it is stored in a namespace, otherwise if it may have
    /// parts.
    fn set(&mut self, tokens: &[Token<'a>], end: usize) {
        let mut depth = 0;
        let assignment = tokens.iter().position(|token| {
            match token.text {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth -= 1,
                _ => {}
            }
            depth == 0 && token.text == "="
        });
        let (target, value) = match assignment {
            Some(at) => (&tokens[..at], &tokens[at + 1..]),
            // The value is the text up to `endset`, through filters.
            None => (tokens, &[][..]),
        };
        let is_block = assignment.is_none();
        let in_namespace = target
            .iter()
            .take_while(|t| t.text != "|")
            .any(|t| t.text == ".");
        let has_parts = value.iter().any(|t| matches!(t.text, "(" | "[" | "{"));
        match (assignment, value.first(), in_namespace) {
            (Some(_), Some(first), true) => {
                self.edits.push(Edit::insert(first.at, format!("{KEPT}((")));
                self.edits.push(Edit::insert(end, "))".to_owned()));
            }
            (Some(_), Some(first), false) if has_parts => {
                self.edits
                    .push(Edit::insert(first.at, format!("{BOUNDED}((")));
                self.edits.push(Edit::insert(end, "))".to_owned()));
            }
            (None, _, true) if target.iter().any(|t| t.text == "|") => {
                self.edits.push(Edit::insert(end, format!("|{KEPT} ")));
            }
            _ => {}
        }
        if is_block {
            self.edits.push(Edit::insert(end, "%}{% with ".to_owned()));
        }
    }
}

/// Length of a tag that holds `name` alone, from after its opening.
fn basic_tag(rest: &str, name: &str) -> Option<usize> {
    let space = |c: char| c.is_ascii_whitespace();
    let inner = rest.trim_start_matches(space).strip_prefix(name)?;
    let inner = inner.trim_start_matches(space);
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner);
    Some(rest.len() - inner.strip_prefix("%}")?.len())
}

/// Length of the string literal at the beginning of `rest`, quotes included.
fn string(rest: &str) -> Option<usize> {
    let quote = rest.chars().next()?;
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(source: &str) -> String {
        prepare(source).ok().unwrap().text
    }

    #[test]
    fn generation_blocks_are_found_where_the_engine_would_find_them() {
        let marked = prepare("{%- generation -%}a{% endgeneration %}")
            .ok()
            .unwrap();
        assert!(marked.marks_generation);
        assert_eq!(
            marked.text,
            "{%- with %}{% filter __generation__ -%}a{% endfilter %}{% endwith %}"
        );
        for untouched in [
            "{{ '{% generation %}' }}",
            "{# {% generation %} #}",
            "{% raw %}{% generation %}{% endraw %}",
            "{% raw %}{% generation %}{%- endraw -%}",
            "{% set generation = 1 %}",
            "{%}",
            "{% ",
            "{{ \"",
            "{{ {'a': {'b': 1}} }}{%",
            "{% set a = b.c + 'x' %}",
        ] {
            assert_eq!(text(untouched), untouched);
            assert!(!prepare(untouched).ok().unwrap().marks_generation);
        }
    }

    #[test]
    fn set_is_bounded_where_its_value_may_have_parts() {
        for (source, expected) in [
            ("{% set a = [b] -%}", "{% set a = __bounded__(([b] ))-%}"),
            (
                "{% set a, b = (1, 2) %}",
                "{% set a, b = __bounded__(((1, 2) ))%}",
            ),
            ("{% set n.a = b %}", "{% set n.a = __kept__((b ))%}"),
            (
                "{% set n.a | f(x=1) %}",
                "{% set n.a | f(x=1) |__kept__ %}{% with %}",
            ),
            (
                "{% set a | f(x=n.b) -%}x{%- endset %}",
                "{% set a | f(x=n.b) %}{% with -%}x{%- endwith %}{% endset %}",
            ),
        ] {
            assert_eq!(text(source), expected);
        }
    }

    #[test]
    fn operands_that_may_have_parts_are_measured() {
        for (source, expected) in [
            (
                "{{ a == 'x' or b in ['x', 'y'] }}",
                "{{ a == 'x' or b in ['x', 'y'] }}",
            ),
            (
                "{{ a == b }}",
                "{{ __measured__((a)) == __measured__((b)) }}",
            ),
            (
                "{{ a not in b.c }}",
                "{{ __measured__((a)) not in __measured__((b.c)) }}",
            ),
            ("{{ a is not in(b) }}", "{{ a is not in(b) }}"),
            ("{{ 1 + a ~ 'x' }}", "{{ 1 + __text__((a)) ~ 'x' }}"),
            ("{{ a + b }}", "{{ __bounded__((a + b)) }}"),
            ("{{ [a] * 2 }}", "{{ __bounded__(([a] * 2)) }}"),
            (
                "{{ a[b] ~ a[0] }}",
                "{{ __text__((a[__measured__((b))])) ~ __text__((a[0])) }}",
            ),
            ("{{ a[1:][-1] }}", "{{ a[1:][__measured__((-1))] }}"),
            (
                "{% for a in b if a == c %}",
                "{% for a in b if __measured__((a)) == __measured__((c)) %}",
            ),
            (
                "{% elif -a > b %}",
                "{% elif __measured__((-a)) > __measured__((b)) %}",
            ),
            (
                "{{ {a: 1, 'b': c} }}",
                "{{ {__measured__((a)): 1, 'b': c} }}",
            ),
            (
                "{{ loop.changed(a, b) }}",
                "{{ loop.changed(__measured__((a, b))) }}",
            ),
        ] {
            assert_eq!(text(source), expected);
        }
    }

    #[test]
    fn dictionaries_are_pythons_only_where_their_methods_are_read() {
        assert_eq!(text("{{ {'a': x.items()} }}"), "{{ {'a': x.items()} }}");
        assert_eq!(
            text("{{ {'a': x.items} }}"),
            "{{ __dictionary__({'a': x.items}) }}"
        );
    }
}
