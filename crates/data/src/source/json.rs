//! Streams JSON lines and JSON documents (an array of rows, or an object that holds one).

use std::io::{BufRead, Cursor};
use std::sync::atomic::Ordering;

use serde_json::{Map, Value};

use super::{Raw, RawRow, Rows, Text, io_error, read_line};
use crate::columns::Columns;
use crate::error::{BadRow, DataError, Place, RowProblem};
use crate::options::Format;
use crate::record;

/// Keys that occur in a record and not around a list of records.
const RECORD_KEYS: [&str; 8] = [
    "messages",
    "conversations",
    "instruction",
    "output",
    "prompt",
    "completion",
    "text",
    "input_ids",
];

/// Whether a text whose first line `first` begins with `{` is one object that holds the rows, and
/// not the first of many rows.
pub(super) fn is_document(
    first: &[u8],
    text: &mut Text,
    columns: &Columns,
) -> Result<bool, DataError> {
    match serde_json::from_slice::<Value>(first) {
        // A whole object on a line is a document only if it is alone and is no record itself.
        Ok(Value::Object(fields)) => {
            if !is_rest_blank(text)? {
                return Ok(false);
            }
            let keys: Vec<&str> = fields.keys().map(String::as_str).collect();
            if fields.iter().any(|(key, value)| is_column(key, value)) {
                return Err(by_column(
                    text,
                    keys.into_iter().map(str::to_owned).collect(),
                ));
            }
            let record = record::detect(&keys, record::is_judged(&fields)).is_some()
                || record::refused(&fields, Format::Auto).is_some()
                || columns.iter().any(|(_, column)| keys.contains(&column));
            Ok(!record && (fields.values().any(holds_rows) || is_empty_list(&fields)))
        }
        // The line is cut off: the document continues, unless the next line begins a row.
        Err(e) if e.is_eof() => {
            let failed = (&text.path, text.compressed);
            let buffer = text.reader.fill_buf();
            let buffer = buffer.map_err(|e| io_error(failed.0, failed.1, e))?;
            Ok(!buffer.is_empty() && buffer[0] != b'{')
        }
        _ => Ok(false),
    }
}

/// Whether a list of objects may be a list of rows; a list of messages is part of one row.
fn holds_rows(value: &Value) -> bool {
    let first = value.as_array().and_then(|rows| rows.first());
    let first = first.and_then(Value::as_object);
    first.is_some_and(|row| !["role", "from"].iter().any(|key| row.contains_key(*key)))
}

/// Whether an object is a list without rows, and nothing else.
fn is_empty_list(fields: &Map<String, Value>) -> bool {
    let mut values = fields.values();
    values.len() == 1 && values.all(|value| value.as_array().is_some_and(Vec::is_empty))
}

/// What stands where something else was expected.
fn found(byte: Option<u8>) -> String {
    match byte {
        None => "the file ends".to_owned(),
        Some(byte) => format!("found `{}`", char::from(byte).escape_default()),
    }
}

/// Says what is wrong with a row at the beginning of `rest`, from the words of serde_json.
pub(super) fn words(message: &str, rest: &[u8]) -> String {
    let problem = match message.strip_prefix("EOF while parsing ") {
        Some("a value") => "the row ends where a value is expected".to_owned(),
        Some(inside) => format!("the row ends inside {inside}"),
        None => message.to_owned(),
    };
    format!("{problem}{}", advice(message, rest))
}

/// Advice if a value is written in a form that other languages have and JSON has not.
fn advice(message: &str, rest: &[u8]) -> &'static str {
    let begins = |words: &[&str]| words.iter().any(|w| rest.starts_with(w.as_bytes()));
    if begins(&["//", "/*", "#"]) {
        "; JSON has no comments"
    } else if begins(&["NaN", "Infinity"]) {
        "; NaN and Infinity are no JSON, write null"
    } else if begins(&["'"]) {
        "; texts stand in double quotes (Python: `json.dumps`)"
    } else if begins(&["None", "True", "False"]) {
        "; write null, true, false (Python: `json.dumps`)"
    } else if message == "key must be a string" {
        "; keys stand in double quotes"
    } else {
        ""
    }
}

fn is_rest_blank(text: &mut Text) -> Result<bool, DataError> {
    loop {
        let failed = (&text.path, text.compressed);
        let buffer = text.reader.fill_buf();
        let buffer = buffer.map_err(|e| io_error(failed.0, failed.1, e))?;
        if buffer.is_empty() {
            return Ok(true);
        }
        let blank = buffer.iter().take_while(|b| b.is_ascii_whitespace());
        let blank = blank.count();
        if blank < buffer.len() {
            return Ok(false);
        }
        text.reader.consume(blank);
    }
}

/// Whether a key of a record holds the values of many rows: as a list, or by row number as pandas
/// writes it.
fn is_column(key: &str, value: &Value) -> bool {
    let text = ["text", "prompt", "completion", "instruction", "output"].contains(&key);
    let list = ["messages", "conversations", "input_ids"].contains(&key);
    let first = match value {
        Value::Array(values) => values.first(),
        Value::Object(values) => values.get("0"),
        _ => None,
    };
    first.is_some_and(|first| match first {
        Value::String(_) => text,
        Value::Array(_) => list,
        _ => false,
    })
}

fn by_column(text: &Text, keys: Vec<String>) -> DataError {
    DataError::Columns {
        path: text.path.clone(),
        keys,
    }
}

/// Reads one row per line.
pub(super) struct Lines {
    text: Text,
    first: Option<Vec<u8>>,
    line: u64,
    row: u64,
}

impl Lines {
    pub(super) fn new(text: Text, first: Vec<u8>, skipped_lines: u64) -> Self {
        Self {
            text,
            first: Some(first),
            line: skipped_lines,
            row: 0,
        }
    }
}

impl Rows for Lines {
    fn next_row(&mut self) -> Result<Option<RawRow>, DataError> {
        loop {
            let mut line = match self.first.take() {
                Some(line) => line,
                None => {
                    let mut line = Vec::new();
                    if read_line(&mut self.text, &mut line)? == 0 {
                        return Ok(None);
                    }
                    line
                }
            };
            self.line += 1;
            line.truncate(line.trim_ascii_end().len());
            if line.trim_ascii_start().is_empty() {
                continue;
            }
            self.row += 1;
            return Ok(Some(RawRow {
                row: self.row,
                raw: Raw::Json {
                    text: line,
                    line: self.line,
                    column: 1,
                },
            }));
        }
    }

    fn consumed(&self) -> u64 {
        self.text.consumed.load(Ordering::Relaxed)
    }
}

/// Reads the array of rows of a document, element by element.
pub(super) struct Document {
    scanner: Scanner,
    state: State,
    /// Keys of a surrounding object whose values are arrays.
    arrays: Option<Vec<String>>,
    row: u64,
}

#[derive(PartialEq)]
enum State {
    /// The place before the first element.
    First,
    /// The place after an element.
    Later,
    Done,
}

impl Document {
    pub(super) fn new(text: Text, first: Vec<u8>, skipped_lines: u64) -> Result<Self, DataError> {
        let mut document = Self {
            scanner: Scanner {
                head: Cursor::new(first),
                text,
                line: skipped_lines + 1,
                column: 1,
                row: 1,
            },
            state: State::First,
            arrays: None,
            row: 0,
        };
        document.scanner.space()?;
        if document.scanner.expect("[{")? == b'{' {
            document.arrays = Some(Vec::new());
            if !document.next_array(true)? {
                return Err(document.array_count());
            }
        }
        Ok(document)
    }

    fn array_count(&self) -> DataError {
        let path = &self.scanner.text.path;
        if path.ends_with("dataset_info.json") {
            return DataError::Foreign {
                path: path.clone(),
                what: "describes data sets and holds no rows; give the files that it names",
            };
        }
        DataError::Arrays {
            path: self.scanner.text.path.clone(),
            arrays: self.arrays.clone().unwrap_or_default(),
        }
    }

    /// Continues through the surrounding object, from its beginning or after a value, into the next
    /// array.
    fn next_array(&mut self, mut beginning: bool) -> Result<bool, DataError> {
        loop {
            self.scanner.space()?;
            if self.scanner.expect(if beginning { "\"}" } else { ",}" })? == b'}' {
                return Ok(false);
            }
            if !beginning {
                self.scanner.space()?;
                self.scanner.expect("\"")?;
            }
            beginning = false;
            let mut key = vec![b'"'];
            self.scanner.string(&mut key)?;
            self.scanner.space()?;
            self.scanner.expect(":")?;
            self.scanner.space()?;
            let next = self.scanner.peek()?;
            let name = String::from_utf8_lossy(&key[1..key.len() - 1]).into_owned();
            if self.is_first() && RECORD_KEYS.contains(&name.as_str()) {
                return Err(by_column(&self.scanner.text, vec![name]));
            }
            if next == Some(b'[') {
                self.scanner.next()?;
                self.arrays.get_or_insert_default().push(name);
                return Ok(true);
            }
            self.scanner.value(&mut Vec::new())?;
        }
    }

    /// Whether no array was found yet.
    fn is_first(&self) -> bool {
        self.arrays.as_ref().is_none_or(Vec::is_empty)
    }

    /// Reads the text after the array.
    fn end(&mut self) -> Result<(), DataError> {
        self.state = State::Done;
        if self.arrays.is_some() && self.next_array(false)? {
            return Err(self.array_count());
        }
        self.scanner.space()?;
        match self.scanner.peek()? {
            None => Ok(()),
            Some(byte) => Err(self.scanner.unexpected(Some(byte), "the end of the file")),
        }
    }
}

impl Rows for Document {
    fn next_row(&mut self) -> Result<Option<RawRow>, DataError> {
        if self.state == State::Done {
            return Ok(None);
        }
        self.scanner.row = self.row + 1;
        self.scanner.space()?;
        let first = self.state == State::First;
        if first {
            if self.scanner.peek()? == Some(b']') {
                self.scanner.next()?;
                self.end()?;
                return Ok(None);
            }
        } else if self.scanner.expect(",]")? == b']' {
            self.end()?;
            return Ok(None);
        }
        self.state = State::Later;
        self.scanner.space()?;
        let (line, column) = (self.scanner.line, self.scanner.column);
        let mut text = Vec::new();
        self.scanner.value(&mut text)?;
        self.row += 1;
        let raw = match text.is_empty() {
            false => Raw::Json { text, line, column },
            true => {
                let found = found(self.scanner.peek()?);
                let after = if first { "" } else { " after the comma" };
                Raw::Broken {
                    problem: RowProblem::Json(format!("expected a row{after}, {found}")),
                    line: Some(line),
                    column: Some(column),
                }
            }
        };
        Ok(Some(RawRow { row: self.row, raw }))
    }

    fn consumed(&self) -> u64 {
        self.scanner.text.consumed.load(Ordering::Relaxed)
    }
}

/// Walks over JSON byte by byte and tracks its place.
struct Scanner {
    head: Cursor<Vec<u8>>,
    text: Text,
    line: u64,
    column: u64,
    /// Number of the row being read, for error messages.
    row: u64,
}

impl Scanner {
    fn peek(&mut self) -> Result<Option<u8>, DataError> {
        if let Some(&byte) = self.head.get_ref().get(self.head.position() as usize) {
            return Ok(Some(byte));
        }
        match self.text.reader.fill_buf() {
            Ok(buffer) => Ok(buffer.first().copied()),
            Err(error) => Err(self.text.failed(error)),
        }
    }

    fn next(&mut self) -> Result<Option<u8>, DataError> {
        let byte = self.peek()?;
        if let Some(byte) = byte {
            if (self.head.position() as usize) < self.head.get_ref().len() {
                self.head.set_position(self.head.position() + 1);
            } else {
                self.text.reader.consume(1);
            }
            if byte == b'\n' {
                self.line += 1;
                self.column = 1;
            } else if byte & 0xc0 != 0x80 {
                self.column += 1;
            }
        }
        Ok(byte)
    }

    fn space(&mut self) -> Result<(), DataError> {
        while self.peek()?.is_some_and(|b| b.is_ascii_whitespace()) {
            self.next()?;
        }
        Ok(())
    }

    fn expect(&mut self, any_of: &'static str) -> Result<u8, DataError> {
        match self.peek()? {
            Some(byte) if any_of.as_bytes().contains(&byte) => {
                self.next()?;
                Ok(byte)
            }
            other => Err(self.unexpected(other, any_of)),
        }
    }

    fn unexpected(&self, got: Option<u8>, expected: &str) -> DataError {
        let expected = match expected.chars().collect::<Vec<_>>()[..] {
            [one] => format!("`{one}`"),
            [one, two] => format!("`{one}` or `{two}`"),
            _ => expected.to_owned(),
        };
        let got = found(got);
        DataError::Broken(Box::new(BadRow {
            place: Place {
                path: self.text.path.clone(),
                row: self.row,
                line: Some(self.line),
                column: Some(self.column),
            },
            problem: RowProblem::Json(format!("expected {expected}, {got}")),
        }))
    }

    fn push(&self, out: &mut Vec<u8>, byte: u8) -> Result<(), DataError> {
        if out.len() == self.text.limits.row_bytes {
            return Err(self.text.limits.row_too_large(&self.text.path));
        }
        out.push(byte);
        Ok(())
    }

    /// Appends a string up to and including its closing quote; its opening quote has been read.
    fn string(&mut self, out: &mut Vec<u8>) -> Result<(), DataError> {
        loop {
            let byte = self.next()?;
            let Some(byte) = byte else {
                return Err(self.unexpected(None, "the end of a string"));
            };
            self.push(out, byte)?;
            match byte {
                b'"' => return Ok(()),
                b'\\' => {
                    if let Some(escaped) = self.next()? {
                        self.push(out, escaped)?;
                    }
                }
                _ => {}
            }
        }
    }

    /// Appends the text of one value; it understands only brackets and strings.
    fn value(&mut self, out: &mut Vec<u8>) -> Result<(), DataError> {
        let mut depth = 0usize;
        loop {
            match self.peek()? {
                None => return Err(self.unexpected(None, "the end of a value")),
                Some(b']' | b'}' | b',') if depth == 0 => return Ok(()),
                Some(b'"') => {
                    self.next()?;
                    self.push(out, b'"')?;
                    self.string(out)?;
                }
                Some(byte) => {
                    self.next()?;
                    self.push(out, byte)?;
                    match byte {
                        b'{' | b'[' => depth += 1,
                        b'}' | b']' => depth -= 1,
                        _ => continue,
                    }
                }
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }
}
