//! Parses tokens into the syntax tree.
use super::ast::*;
use super::lexer::{Token, tokens};
use super::types::ScalarType;
use crate::PtxError;

/// Parses a PTX module. Only debugging sections and line marks are skipped in silence.
pub fn parse(source: &str) -> Result<Module, PtxError> {
    let mut parser = Parser {
        tokens: tokens(source)?,
        at: 0,
        depth: 0,
    };
    parser.module()
}

/// Largest nesting of blocks and lists; a compiler writes two or three levels.
const DEEPEST: usize = 64;
pub(super) struct Parser {
    tokens: Vec<(Token, u32)>,
    at: usize,
    depth: usize,
}

pub(super) type Parsed<T> = Result<T, PtxError>;

impl Parser {
    pub(super) fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(token, _)| token)
    }

    pub(super) fn line(&self) -> u32 {
        let last = self.tokens.len().saturating_sub(1);
        self.tokens
            .get(self.at.min(last))
            .map_or(1, |(_, line)| *line)
    }

    pub(super) fn fail<T>(&self, message: impl Into<String>) -> Parsed<T> {
        Err(PtxError::new(self.line(), message))
    }

    pub(super) fn is_mark(&self, mark: char) -> bool {
        self.peek() == Some(&Token::Mark(mark))
    }

    pub(super) fn take_mark(&mut self, mark: char) -> bool {
        let found = self.is_mark(mark);
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect_mark(&mut self, mark: char) -> Parsed<()> {
        if self.take_mark(mark) {
            return Ok(());
        }
        match self.peek() {
            Some(token) => self.fail(format!("`{mark}` expected, got {token:?}")),
            None => self.fail(format!("`{mark}` expected, got the end of the text")),
        }
    }

    fn peek_word(&self) -> Option<&str> {
        match self.peek() {
            Some(Token::Word(word)) => Some(word),
            _ => None,
        }
    }

    pub(super) fn take_word(&mut self, word: &str) -> bool {
        let found = self.peek_word() == Some(word);
        self.at += usize::from(found);
        found
    }

    pub(super) fn word(&mut self) -> Parsed<String> {
        match self.peek() {
            Some(Token::Word(word)) => {
                let word = word.clone();
                self.at += 1;
                Ok(word)
            }
            other => {
                let found = other.map_or("the end of the text".into(), |t| format!("{t:?}"));
                self.fail(format!("name expected, got {found}"))
            }
        }
    }

    pub(super) fn integer(&mut self) -> Parsed<u64> {
        let negative = self.take_mark('-');
        match self.peek() {
            Some(&Token::Integer(value)) => {
                self.at += 1;
                Ok(if negative {
                    value.wrapping_neg()
                } else {
                    value
                })
            }
            other => {
                let found = other.map_or("the end of the text".into(), |t| format!("{t:?}"));
                self.fail(format!("integer expected, got {found}"))
            }
        }
    }

    /// Skips a literal that `peek` has returned.
    pub(super) fn skip_literal(&mut self) {
        self.at += 1;
    }

    pub(super) fn scalar_type(&mut self) -> Parsed<ScalarType> {
        let word = self.word()?;
        match word.strip_prefix('.').and_then(ScalarType::parse) {
            Some(ty) => Ok(ty),
            None => self.fail(format!("type expected, got `{word}`")),
        }
    }

    /// Skips to the first token of the next line.
    fn skip_line(&mut self) {
        let line = self.line();
        while self.peek().is_some() && self.line() == line {
            self.at += 1;
        }
    }

    fn skip_braces(&mut self) -> Parsed<()> {
        self.expect_mark('{')?;
        let mut depth = 1;
        while depth > 0 {
            match self.peek() {
                Some(Token::Mark('{')) => depth += 1,
                Some(Token::Mark('}')) => depth -= 1,
                None => return self.fail("`}` expected, got the end of the text"),
                _ => {}
            }
            self.at += 1;
        }
        Ok(())
    }

    fn module(&mut self) -> Parsed<Module> {
        let mut module = Module::default();
        let mut is_extern = false;
        while let Some(token) = self.peek() {
            let Token::Word(word) = token else {
                let message = format!("directive expected, got {token:?}");
                return self.fail(message);
            };
            let word = word.clone();
            match word.as_str() {
                ".version" | ".address_size" | ".file" | ".loc" => self.skip_line(),
                ".target" => {
                    self.at += 1;
                    module.target = self.word()?;
                    while self.take_mark(',') {
                        self.word()?;
                    }
                }
                ".section" => {
                    self.at += 2;
                    self.skip_braces()?;
                }
                ".visible" | ".weak" | ".common" => self.at += 1,
                ".extern" => {
                    self.at += 1;
                    is_extern = true;
                }
                ".entry" | ".func" => {
                    self.at += 1;
                    module.functions.push(self.function(word == ".entry")?);
                    is_extern = false;
                }
                ".global" | ".const" | ".shared" => {
                    let start = module.variables.len();
                    self.variables(&mut module.variables)?;
                    module.variables[start..]
                        .iter_mut()
                        .for_each(|v| v.is_extern = is_extern);
                    is_extern = false;
                }
                _ => return self.fail(format!("unknown directive `{word}`")),
            }
        }
        Ok(module)
    }

    fn function(&mut self, is_kernel: bool) -> Parsed<Function> {
        let results = if self.is_mark('(') {
            self.parameters()?
        } else {
            Vec::new()
        };
        let line = self.line();
        let name = self.word()?;
        let parameters = if self.is_mark('(') {
            self.parameters()?
        } else {
            Vec::new()
        };
        let mut max_threads = None;
        loop {
            match self.peek_word() {
                Some(".maxntid" | ".reqntid") => {
                    self.at += 1;
                    let mut threads = self.integer()?;
                    while self.take_mark(',') {
                        threads = threads.saturating_mul(self.integer()?);
                    }
                    max_threads = Some(u32::try_from(threads).unwrap_or(u32::MAX));
                }
                Some(".minnctapersm" | ".maxnreg" | ".maxnctapersm") => {
                    self.at += 1;
                    self.integer()?;
                }
                Some(".noreturn") => self.at += 1,
                Some(".pragma") => {
                    self.at += 2;
                    self.expect_mark(';')?;
                }
                Some(word) => {
                    let message = format!("unknown directive `{word}` of a function");
                    return self.fail(message);
                }
                None => break,
            }
        }
        let body = if self.take_mark(';') {
            None
        } else {
            Some(self.block()?)
        };
        Ok(Function {
            name,
            is_kernel,
            parameters,
            results,
            body,
            max_threads,
            line,
        })
    }

    fn parameters(&mut self) -> Parsed<Vec<Variable>> {
        self.expect_mark('(')?;
        let mut out = Vec::new();
        while !self.take_mark(')') {
            if !out.is_empty() {
                self.expect_mark(',')?;
            }
            out.push(self.parameter()?);
        }
        Ok(out)
    }

    /// Reads the contents of brackets, with limited nesting.
    fn within<T>(&mut self, read: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth == DEEPEST {
            return self.fail(format!("more than {DEEPEST} brackets within each other"));
        }
        self.depth += 1;
        let inner = read(self)?;
        self.depth -= 1;
        Ok(inner)
    }

    fn block(&mut self) -> Parsed<Vec<Statement>> {
        self.expect_mark('{')?;
        let mut out = Vec::new();
        while !self.take_mark('}') {
            if self.is_mark('{') {
                out.push(Statement::Block(self.within(Self::block)?));
                continue;
            }
            match self.peek_word() {
                Some(".reg") => {
                    self.at += 1;
                    let (ty, names) = self.registers()?;
                    out.push(Statement::Registers(ty, names));
                }
                Some(".local" | ".shared" | ".param" | ".global" | ".const") => {
                    let mut variables = Vec::new();
                    self.variables(&mut variables)?;
                    out.extend(variables.into_iter().map(Statement::Variable));
                }
                Some(".loc") => self.skip_line(),
                Some(".pragma") => {
                    self.at += 2;
                    self.expect_mark(';')?;
                }
                Some(word) if word.starts_with('.') => {
                    let message = format!("unknown directive `{word}` in a body");
                    return self.fail(message);
                }
                _ => out.push(self.label_or_instruction()?),
            }
        }
        Ok(out)
    }

    fn label_or_instruction(&mut self) -> Parsed<Statement> {
        let is_label = matches!(self.tokens.get(self.at + 1), Some((Token::Mark(':'), _)));
        if !is_label {
            return Ok(Statement::Instruction(self.instruction()?));
        }
        let label = self.word()?;
        self.expect_mark(':')?;
        if !self.take_word(".branchtargets") {
            return Ok(Statement::Label(label));
        }
        let mut targets = vec![self.word()?];
        while self.take_mark(',') {
            targets.push(self.word()?);
        }
        self.expect_mark(';')?;
        Ok(Statement::BranchTargets(label, targets))
    }

    fn instruction(&mut self) -> Parsed<Instruction> {
        let guard = if self.take_mark('@') {
            let negated = self.take_mark('!');
            Some(Guard {
                register: self.word()?,
                negated,
            })
        } else {
            None
        };
        let line = self.line();
        let mnemonic = self.word()?;
        let mut words = mnemonic.split('.').map(str::to_string);
        let opcode = words.next().unwrap_or_default();
        let modifiers = words.collect();
        let mut operands = Vec::new();
        while !self.take_mark(';') {
            if !operands.is_empty() {
                self.expect_mark(',')?;
            }
            operands.push(self.operand()?);
        }
        Ok(Instruction {
            guard,
            opcode,
            modifiers,
            operands,
            line,
        })
    }

    fn operands_until(&mut self, close: char) -> Parsed<Vec<Operand>> {
        let mut out = Vec::new();
        while !self.take_mark(close) {
            if !out.is_empty() {
                self.expect_mark(',')?;
            }
            out.push(self.operand()?);
        }
        Ok(out)
    }

    fn offset(&mut self) -> Parsed<i64> {
        let follows = self.take_mark('+') || self.is_mark('-');
        Ok(if follows { self.integer()? as i64 } else { 0 })
    }

    fn operand(&mut self) -> Parsed<Operand> {
        if self.take_mark('!') {
            return Ok(Operand::Not(self.word()?));
        }
        if self.take_mark('{') {
            return Ok(Operand::Vector(
                self.within(|inner| inner.operands_until('}'))?,
            ));
        }
        if self.take_mark('(') {
            return Ok(Operand::List(
                self.within(|inner| inner.operands_until(')'))?,
            ));
        }
        if self.take_mark('[') {
            let base = match self.peek() {
                Some(Token::Word(_)) => Some(self.word()?),
                _ => None,
            };
            let offset = match base {
                Some(_) => self.offset()?,
                None => self.integer()? as i64,
            };
            self.expect_mark(']')?;
            return Ok(Operand::Address(base, offset));
        }
        match self.peek().cloned() {
            Some(Token::Word(name)) => {
                self.at += 1;
                if self.take_mark('|') {
                    return Ok(Operand::Pair(name, self.word()?));
                }
                if self.is_mark('+') || self.is_mark('-') {
                    return Ok(Operand::Offset(name, self.offset()?));
                }
                Ok(Operand::Name(name))
            }
            Some(Token::Float32(bits)) => {
                self.at += 1;
                Ok(Operand::Float32(bits))
            }
            Some(Token::Float64(bits)) => {
                self.at += 1;
                Ok(Operand::Float64(bits))
            }
            _ => Ok(Operand::Integer(self.integer()?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    const SMALL: &str = r#".version 9.0
.target sm_80
.address_size 64
.const .align 4 .f32 table[2] = {0f3F800000, 0f40000000};
.extern .shared .align 16 .b8 dynamic[];
.visible .entry k(
    .param .u64 k_param_0,
    .param .align 8 .b8 k_param_1[24]
)
.maxntid 256, 1, 1
{
    .reg .pred %p<2>;
    .reg .b32 %r<3>;
    @!%p1 bra $L1;
    { .reg .b32 %r9; mov.u32 %r9, %tid.x; }
$L1:
    ld.global.v2.f32 {%f1, %f2}, [%rd1+-8];
    shfl.sync.bfly.b32 %r1|%p1, %r2, 16, 31, -1;
    ret;
}
"#;

    #[test]
    fn a_small_module() {
        let module = parse(SMALL).unwrap();
        assert_eq!(module.target, "sm_80");
        assert_eq!(
            module.variables[0].initial.as_deref(),
            Some(&[0, 0, 128, 63, 0, 0, 0, 64][..])
        );
        assert_eq!(module.variables[1].bytes, None);
        assert!(module.variables[1].is_extern);
        let kernel = &module.functions[0];
        assert_eq!((kernel.name.as_str(), kernel.max_threads), ("k", Some(256)));
        assert_eq!(kernel.parameters[1].bytes, Some(24));
        let body = kernel.body.as_ref().unwrap();
        let Statement::Registers(_, names) = &body[1] else {
            panic!("{:?}", body[1])
        };
        assert_eq!(names.len(), 3);
        let Statement::Instruction(branch) = &body[2] else {
            panic!("{:?}", body[2])
        };
        assert_eq!(
            branch.guard,
            Some(Guard {
                register: "%p1".into(),
                negated: true
            })
        );
        let Statement::Instruction(load) = &body[5] else {
            panic!("{:?}", body[5])
        };
        assert_eq!(load.modifiers, ["global", "v2", "f32"]);
        assert_eq!(load.operands[1], Operand::Address(Some("%rd1".into()), -8));
        assert_eq!(load.line, 17);
        let Statement::Instruction(shuffle) = &body[6] else {
            panic!("{:?}", body[6])
        };
        assert_eq!(
            shuffle.operands[0],
            Operand::Pair("%r1".into(), "%p1".into())
        );
        assert_eq!(shuffle.operands[4], Operand::Integer(u64::MAX));
    }

    #[test]
    fn errors_name_the_line_and_the_text() {
        for (source, line, part) in [
            (".version 9.0\n.nonsense x;", 2, ".nonsense"),
            (".entry k(\n.param .u99 x)", 2, ".u99"),
            (".entry k()\n{\n ret\n}", 4, "expected"),
            (".entry k()\n{\n ret;", 3, "end of the text"),
        ] {
            let error = parse(source).unwrap_err();
            assert_eq!(error.line, line, "{error}");
            assert!(error.message.contains(part), "{error}");
        }
    }
}
