//! Operands that the engine would compare, join or look up without counting the work: each is
//! rewritten as an argument of a function that counts it.

use super::scan::{BOUNDED, Edit, MEASURED, TEXT, Token};

/// The operator between two operands, from loose to tight.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bound {
    /// `and`, `or`, `not`, `if`, a comma, a bracket, the end and the like.
    Loose,
    /// `==` and similar operators; `in`.
    Comparison,
    /// `+` and `-`.
    Sum,
    /// `~`.
    Joint,
    /// `*`.
    Product,
}

/// Meaning of a pair of brackets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Brackets {
    /// The tag itself, a group, arguments, a list.
    Plain,
    /// `{…}`: keys and values.
    Dictionary,
    /// `x[…]`.
    Subscript,
    /// The arguments of `loop.changed`.
    Changed,
}

struct Level {
    brackets: Brackets,
    /// Bounds in order, by token; the first lies before the first token.
    bounds: Vec<(usize, Bound)>,
    first: usize,
}

/// Edits of one tag. `statement`: the tag begins with a word like `if` or `set`.
pub(super) fn edits(tokens: &[Token<'_>], statement: bool) -> Vec<Edit> {
    let mut reader = Reader {
        tokens,
        edits: Vec::new(),
    };
    let first = usize::from(statement);
    let loops = statement && tokens.first().is_some_and(|token| token.text == "for");
    let mut iterates = loops;
    let level = |brackets, first| Level {
        brackets,
        bounds: Vec::new(),
        first,
    };
    let mut levels = vec![level(Brackets::Plain, first)];
    for (index, token) in tokens.iter().enumerate().skip(first) {
        let depth = levels.len();
        let Some(current) = levels.last_mut() else {
            break;
        };
        match token.text {
            "(" | "[" | "{" => {
                let inner = reader.brackets(index);
                levels.push(level(inner, index + 1));
            }
            ")" | "]" | "}" => {
                reader.close(current, index);
                levels.pop();
                if levels.is_empty() {
                    // The engine will report the error.
                    return reader.edits;
                }
            }
            "in" if iterates && depth == 1 => {
                iterates = false;
                current.bounds.push((index, Bound::Loose));
            }
            _ => current
                .bounds
                .extend(reader.bound(index).map(|bound| (index, bound))),
        }
    }
    if let [level] = &levels[..] {
        reader.close(level, tokens.len());
    }
    reader.edits
}

struct Reader<'a> {
    tokens: &'a [Token<'a>],
    edits: Vec<Edit>,
}

impl Reader<'_> {
    fn text(&self, index: usize) -> &str {
        self.tokens.get(index).map_or("", |token| token.text)
    }

    fn before(&self, index: usize) -> &str {
        index.checked_sub(1).map_or("", |index| self.text(index))
    }

    /// Whether an operand ends here, so that a bracket subscripts it and an operator joins it.
    fn ends_operand(&self, index: usize) -> bool {
        const WORDS: [&str; 8] = ["and", "or", "not", "if", "elif", "else", "in", "is"];
        let text = self.text(index);
        let word = text.starts_with(|c: char| c.is_ascii_alphanumeric() || "_'\")]}".contains(c));
        word && !WORDS.contains(&text)
    }

    fn brackets(&self, index: usize) -> Brackets {
        let after_operand = index > 0 && self.ends_operand(index - 1);
        match self.text(index) {
            "[" if after_operand => Brackets::Subscript,
            "{" => Brackets::Dictionary,
            "(" if index > 1 && self.before(index) == "changed" && self.text(index - 2) == "." => {
                Brackets::Changed
            }
            _ => Brackets::Plain,
        }
    }

    fn bound(&self, index: usize) -> Option<Bound> {
        let before = self.before(index);
        // Names of attributes, filters and tests are not operators.
        if [".", "|", "is"].contains(&before) || (before == "not" && self.is_test(index - 1)) {
            return None;
        }
        Some(match self.text(index) {
            "not" if self.text(index + 1) == "in" => Bound::Comparison,
            "and" | "or" | "not" | "if" | "else" | "recursive" | "," | ":" | "=" => Bound::Loose,
            "==" | "!=" | "<" | ">" | "<=" | ">=" | "in" => Bound::Comparison,
            "+" | "-" if index > 0 && self.ends_operand(index - 1) => Bound::Sum,
            "~" => Bound::Joint,
            "*" if index > 0 && self.ends_operand(index - 1) => Bound::Product,
            _ => return None,
        })
    }

    /// Whether the `not` at `index` belongs to `is not`.
    fn is_test(&self, index: usize) -> bool {
        self.before(index) == "is"
    }

    /// Wraps operands between two brackets; the later bracket is token `end`.
    fn close(&mut self, level: &Level, end: usize) {
        self.comparisons(level, end);
        self.joints(level, end);
        self.lists(level, end);
        match level.brackets {
            Brackets::Plain => {}
            Brackets::Subscript => {
                let slices = level.bounds.iter().any(|(at, _)| self.text(*at) == ":");
                if !slices {
                    self.wrap_unless_literal(level.first..end, MEASURED);
                }
            }
            Brackets::Changed if level.first < end => self.wrap(level.first..end, MEASURED),
            Brackets::Changed => {}
            Brackets::Dictionary => {
                let mut start = level.first;
                for (at, _) in &level.bounds {
                    match self.text(*at) {
                        ":" => self.wrap_unless_literal(start..*at, MEASURED),
                        "," => start = at + 1,
                        _ => {}
                    }
                }
            }
        }
    }

    /// Operands between bounds of these kinds, each with the bounds around it.
    fn operands(level: &Level, end: usize, kinds: &[Bound]) -> Vec<Operand> {
        let mut operands = Vec::new();
        let (mut start, mut left) = (level.first, (level.first, Bound::Loose));
        let close = [(end, Bound::Loose)];
        let bounds = level.bounds.iter().filter(|(_, b)| kinds.contains(b));
        for &(at, bound) in bounds.chain(&close) {
            operands.push(Operand {
                tokens: start..at,
                left,
                right: (at, bound),
            });
            (start, left) = (at + 1, (at, bound));
        }
        operands
    }

    /// Both sides of a comparison, unless one is so small that the comparison is fast.
    fn comparisons(&mut self, level: &Level, end: usize) {
        let kinds = [Bound::Loose, Bound::Comparison];
        let mut operands = Self::operands(level, end, &kinds);
        // There is no operand between the words of `not in`.
        operands.retain(|operand| !operand.tokens.is_empty());
        let mut wrapped = vec![false; operands.len()];
        for index in 1..operands.len() {
            let (left, right) = (&operands[index - 1], &operands[index]);
            if left.right.1 != Bound::Comparison || right.left.1 != Bound::Comparison {
                continue;
            }
            let contains = self.text(right.left.0) == "in";
            let small = match contains {
                true => {
                    self.is_literal(&left.tokens) || self.is_list_of_literals(right.tokens.clone())
                }
                false => self.is_literal(&left.tokens) || self.is_literal(&right.tokens),
            };
            wrapped[index - 1] |= !small;
            wrapped[index] |= !small;
        }
        for (operand, _) in operands.into_iter().zip(wrapped).filter(|(_, w)| *w) {
            self.wrap_unless_literal(operand.tokens, MEASURED);
        }
    }

    /// Operands that `~` turns into text.
    fn joints(&mut self, level: &Level, end: usize) {
        let kinds = [Bound::Loose, Bound::Comparison, Bound::Sum, Bound::Joint];
        for operand in Self::operands(level, end, &kinds) {
            let joined = [operand.left.1, operand.right.1].contains(&Bound::Joint);
            let text = self.text(operand.tokens.start);
            let plain = text.starts_with(['\'', '"']) || text.bytes().all(|b| b.is_ascii_digit());
            if joined && !(plain && operand.tokens.len() == 1) {
                self.wrap(operand.tokens, TEXT);
            }
        }
    }

    /// Sums and products that may be lists.
    fn lists(&mut self, level: &Level, end: usize) {
        let sums = [Bound::Loose, Bound::Comparison];
        let terms = [Bound::Loose, Bound::Comparison, Bound::Sum, Bound::Joint];
        for (operator, outer) in [("+", &sums[..]), ("*", &terms)] {
            for operand in Self::operands(level, end, outer) {
                let from = level
                    .bounds
                    .partition_point(|(at, _)| *at < operand.tokens.start);
                let bounds = level.bounds[from..].iter().map(|(at, _)| *at);
                let mut operators = bounds
                    .take_while(|at| *at < operand.tokens.end)
                    .filter(|at| self.text(*at) == operator);
                let plain = |at: &usize| {
                    let sides = [self.before(*at), self.text(at + 1)];
                    let starts = |first: &[char]| sides.iter().any(|s| s.starts_with(first));
                    let digits = |s: &&str| s.starts_with(|c: char| c.is_ascii_digit());
                    starts(&['\'', '"']) || (operator == "+" && sides.iter().any(digits))
                };
                if !operators.all(|at| plain(&at)) {
                    self.wrap(operand.tokens, BOUNDED);
                }
            }
        }
    }

    fn is_literal(&self, tokens: &std::ops::Range<usize>) -> bool {
        let text = self.text(tokens.start);
        tokens.len() == 1
            && (text.starts_with(|c: char| c.is_ascii_digit() || "'\"".contains(c))
                || ["true", "True", "false", "False", "none", "None"].contains(&text))
    }

    fn is_list_of_literals(&self, tokens: std::ops::Range<usize>) -> bool {
        let brackets = match self.text(tokens.start) {
            "[" => true,
            "(" => self.text(tokens.start + 2) == ",",
            _ => false,
        };
        let inner = tokens.start + 1..tokens.end.saturating_sub(1);
        brackets
            && inner
                .into_iter()
                .all(|at| self.text(at) == "," || self.is_literal(&(at..at + 1)))
    }

    fn wrap_unless_literal(&mut self, tokens: std::ops::Range<usize>, function: &str) {
        if !self.is_literal(&tokens) {
            self.wrap(tokens, function);
        }
    }

    fn wrap(&mut self, tokens: std::ops::Range<usize>, function: &str) {
        let inside = self.tokens.get(tokens).unwrap_or_default();
        let (Some(first), Some(last)) = (inside.first(), inside.last()) else {
            return;
        };
        self.edits
            .push(Edit::insert(first.at, format!("{function}((")));
        let end = last.at + last.text.len();
        self.edits.push(Edit::insert(end, "))".to_owned()));
    }
}

/// Tokens of an operand, and the bounds around it, by token.
struct Operand {
    tokens: std::ops::Range<usize>,
    left: (usize, Bound),
    right: (usize, Bound),
}
