//! Declarations: registers, variables with their initial bytes, parameters.
use super::ast::{Variable, VariableSpace};
use super::lexer::Token;
use super::parser::{Parsed, Parser};
use super::types::ScalarType;

/// Largest number of registers: more than any kernel has, as a guard against absurd counts.
const MOST_REGISTERS: u64 = 1 << 20;

impl Parser {
    /// `.type %a, %b<3>;` after `.reg`.
    pub(super) fn registers(&mut self) -> Parsed<(ScalarType, Vec<String>)> {
        let ty = self.scalar_type()?;
        let mut names = Vec::new();
        loop {
            let name = self.word()?;
            if self.take_mark('<') {
                let count = self.integer()?;
                if count > MOST_REGISTERS {
                    return self.fail(format!("{count} registers in one declaration"));
                }
                names.extend((0..count).map(|i| format!("{name}{i}")));
                self.expect_mark('>')?;
            } else {
                names.push(name);
            }
            if !self.take_mark(',') {
                break;
            }
        }
        self.expect_mark(';')?;
        Ok((ty, names))
    }

    /// One parameter of a function: `.param …` or `.reg …`.
    pub(super) fn parameter(&mut self) -> Parsed<Variable> {
        if !self.take_word(".reg") && !self.take_word(".param") {
            return self.fail("`.param` or `.reg` expected");
        }
        self.variable(VariableSpace::Param)
    }

    /// `.space [.align n] .type name[n] [= …], …;`
    pub(super) fn variables(&mut self, out: &mut Vec<Variable>) -> Parsed<()> {
        let word = self.word()?;
        let space = match word.as_str() {
            ".global" => VariableSpace::Global,
            ".const" => VariableSpace::Const,
            ".shared" => VariableSpace::Shared,
            ".local" => VariableSpace::Local,
            ".param" => VariableSpace::Param,
            _ => return self.fail(format!("unknown state space `{word}`")),
        };
        out.push(self.variable(space)?);
        if self.is_mark(',') {
            return self.fail("several variables in one declaration are not supported");
        }
        self.expect_mark(';')
    }

    fn variable(&mut self, space: VariableSpace) -> Parsed<Variable> {
        let line = self.line();
        let (mut align, mut ty) = (None, None);
        while let Some(Token::Word(word)) = self.peek() {
            let word = word.clone();
            if !word.starts_with('.') {
                break;
            }
            self.word()?;
            match word.as_str() {
                ".align" => align = Some(self.integer()? as usize),
                // Attributes of pointer parameters, which are not needed here.
                ".ptr" => {
                    while self.take_word(".global")
                        || self.take_word(".shared")
                        || self.take_word(".const")
                        || self.take_word(".local")
                    {}
                    if self.take_word(".align") {
                        self.integer()?;
                    }
                }
                _ => match ScalarType::parse(&word[1..]) {
                    Some(scalar) => ty = Some(scalar),
                    None => return self.fail(format!("unknown attribute `{word}` of a variable")),
                },
            }
        }
        let Some(ty) = ty else {
            return self.fail("variable without a type");
        };
        let name = self.word()?;
        let mut count = Some(1usize);
        while self.take_mark('[') {
            if self.take_mark(']') {
                count = None;
                continue;
            }
            let extent = usize::try_from(self.integer()?).ok();
            let product = count.zip(extent).and_then(|(a, b)| a.checked_mul(b));
            if product.is_none() && count.is_some() {
                return self.fail(format!("extent of `{name}` is too large"));
            }
            count = product;
            self.expect_mark(']')?;
        }
        let align = align.unwrap_or(ty.bytes());
        if !align.is_power_of_two() {
            return self.fail(format!("alignment {align} is no power of two"));
        }
        let initial = if self.take_mark('=') {
            Some(self.initial(ty)?)
        } else {
            None
        };
        let mut bytes = count.map(|n| n.saturating_mul(ty.bytes()));
        if let Some(initial) = &initial {
            // `name[] = {…}` has the length of the list.
            let length = *bytes.get_or_insert(initial.len());
            if initial.len() > length {
                let got = initial.len();
                return self.fail(format!("`{name}` has {length} bytes and is given {got}"));
            }
        }
        Ok(Variable {
            space,
            name,
            ty,
            bytes,
            align,
            initial,
            is_extern: false,
            line,
        })
    }

    fn initial(&mut self, ty: ScalarType) -> Parsed<Vec<u8>> {
        let mut out = Vec::new();
        if !self.take_mark('{') {
            self.initial_value(ty, &mut out)?;
            return Ok(out);
        }
        let mut depth = 1;
        while depth > 0 {
            if self.take_mark('{') {
                depth += 1;
            } else if self.take_mark('}') {
                depth -= 1;
            } else if !self.take_mark(',') {
                self.initial_value(ty, &mut out)?;
            }
        }
        Ok(out)
    }

    fn initial_value(&mut self, ty: ScalarType, out: &mut Vec<u8>) -> Parsed<()> {
        let bits = match self.peek() {
            Some(&Token::Float32(bits)) => {
                self.skip_literal();
                u64::from(bits)
            }
            Some(&Token::Float64(bits)) => {
                self.skip_literal();
                bits
            }
            Some(Token::Integer(_) | Token::Mark('-')) => self.integer()?,
            other => {
                let message =
                    format!("initial value expected, got {other:?} (addresses are not supported)");
                return self.fail(message);
            }
        };
        out.extend_from_slice(&bits.to_le_bytes()[..ty.bytes()]);
        Ok(())
    }
}
