//! Watches Parquet pages: a record of a list column is refused before its values are in memory.
//!
//! Run-length encoding stores millions of values in a few bytes, and a dictionary repeats one long
//! text as often as a list refers to it, so neither the size of a file nor that of a page limits
//! the memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parquet::basic::{Encoding, Type};
use parquet::bloom_filter::Sbbf;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::RowGroupReader;
use parquet::record::reader::RowIter;
use parquet::schema::types::Type as SchemaType;

use crate::source::VALUE_BYTES;

/// All list columns together may hold this many times the limit of one: ids, labels and two masks.
const COLUMNS: u64 = 4;
/// The longest text of a dictionary may occur in a row until it takes this many times the limit of
/// a row.
const REPEATED: u64 = 64;

/// The limit, and whether a row exceeded it.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    row_bytes: u64,
    exceeded: Arc<AtomicBool>,
    /// Sum over the list columns of the values of the longest record.
    values: Arc<AtomicU64>,
}

impl Watch {
    pub(super) fn new(row_bytes: usize) -> Self {
        Self {
            row_bytes: row_bytes as u64,
            exceeded: Arc::default(),
            values: Arc::default(),
        }
    }

    pub(super) fn exceeded(&self) -> bool {
        self.exceeded.load(Ordering::Relaxed)
    }

    fn refuse(&self) -> ParquetError {
        self.exceeded.store(true, Ordering::Relaxed);
        ParquetError::General("a row that is too large".to_owned())
    }
}

/// A row group whose pages are watched.
pub(super) struct WatchedGroup<'a> {
    pub group: Box<dyn RowGroupReader + 'a>,
    pub watch: Watch,
}

impl RowGroupReader for WatchedGroup<'_> {
    fn metadata(&self) -> &RowGroupMetaData {
        self.group.metadata()
    }

    fn num_columns(&self) -> usize {
        self.group.num_columns()
    }

    fn get_column_page_reader(&self, i: usize) -> Result<Box<dyn PageReader>> {
        let pages = self.group.get_column_page_reader(i)?;
        let column = self.metadata().schema_descr().column(i);
        if column.max_rep_level() == 0 {
            return Ok(pages);
        }
        Ok(Box::new(WatchedPages {
            pages,
            watch: self.watch.clone(),
            // Levels are 0 to max.
            width: i16::BITS - column.max_rep_level().leading_zeros(),
            texts: column.physical_type() == Type::BYTE_ARRAY,
            record: 0,
            longest_record: 0,
            longest_text: 0,
        }))
    }

    fn get_column_bloom_filter(&self, i: usize) -> Option<&Sbbf> {
        self.group.get_column_bloom_filter(i)
    }

    fn get_row_iter(&self, projection: Option<SchemaType>) -> Result<RowIter<'_>> {
        RowIter::from_row_group(projection, self)
    }
}

struct WatchedPages {
    pages: Box<dyn PageReader>,
    watch: Watch,
    /// Number of bits of a repetition level.
    width: u32,
    texts: bool,
    /// Number of values of the record so far.
    record: u64,
    longest_record: u64,
    /// Length in bytes of the longest text of the dictionary.
    longest_text: u64,
}

impl WatchedPages {
    fn check(&mut self, page: &Page) -> Result<()> {
        match page {
            Page::DictionaryPage { buf, .. } if self.texts => {
                self.longest_text = longest_text(buf);
                return Ok(());
            }
            Page::DictionaryPage { .. } => return Ok(()),
            Page::DataPage {
                buf,
                num_values,
                rep_level_encoding: Encoding::RLE,
                ..
            } => {
                let (length, levels) = buf.split_at_checked(4).unwrap_or((&[], &[]));
                let length = length.try_into().map_or(0, u32::from_le_bytes) as usize;
                let levels = levels.get(..length).unwrap_or(levels);
                self.levels(levels, (*num_values).into());
            }
            Page::DataPageV2 {
                buf,
                num_values,
                rep_levels_byte_len,
                ..
            } => {
                let levels = buf.get(..*rep_levels_byte_len as usize).unwrap_or(buf);
                self.levels(levels, (*num_values).into());
            }
            // The encoding is old: it takes bytes for each level, and the page counts as one
            // record.
            Page::DataPage { num_values, .. } => self.add(u64::from(*num_values)),
        }
        let limit = self.watch.row_bytes / VALUE_BYTES as u64;
        let all = self.watch.values.load(Ordering::Relaxed);
        let repeated = self.longest_record.saturating_mul(self.longest_text);
        if self.longest_record > limit
            || all > COLUMNS * limit
            || repeated > REPEATED.saturating_mul(self.watch.row_bytes)
        {
            return Err(self.watch.refuse());
        }
        Ok(())
    }

    /// Adds values that belong to the current record.
    fn add(&mut self, values: u64) {
        self.record += values;
        if self.record > self.longest_record {
            let more = self.record - self.longest_record;
            self.watch.values.fetch_add(more, Ordering::Relaxed);
            self.longest_record = self.record;
        }
    }

    /// Walks over repetition levels (runs, and bit-packed groups of eight): 0 begins a record.
    fn levels(&mut self, mut data: &[u8], mut left: u64) {
        while left > 0 {
            let Some(header) = number(&mut data) else {
                return;
            };
            let count = header >> 1;
            if header & 1 == 0 {
                let Some((&level, rest)) = data.split_first() else {
                    return;
                };
                data = rest;
                let count = count.min(left);
                left -= count;
                if level == 0 && count > 0 {
                    self.record = 0;
                    self.add(1);
                } else {
                    self.add(count);
                }
                continue;
            }
            let bytes = count
                .saturating_mul(self.width.into())
                .min(data.len() as u64) as usize;
            let (packed, rest) = data.split_at(bytes);
            data = rest;
            let count = count.saturating_mul(8).min(left);
            left -= count;
            for index in 0..count.min(bytes as u64 * 8) {
                let bits = (index * u64::from(self.width))..(index + 1) * u64::from(self.width);
                let set = |bit: u64| {
                    packed
                        .get(bit as usize / 8)
                        .is_some_and(|b| b >> (bit % 8) & 1 == 1)
                };
                if !bits.into_iter().any(set) {
                    self.record = 0;
                }
                self.add(1);
            }
        }
    }
}

/// Reads a number with seven bits per byte, the lowest first.
fn number(data: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..63).step_by(7) {
        let (&byte, rest) = data.split_first()?;
        *data = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Length of the longest of texts that each follow their length.
fn longest_text(mut data: &[u8]) -> u64 {
    let mut longest = 0;
    while let Some((length, rest)) = data.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        longest = longest.max(length.min(rest.len()) as u64);
        data = rest.get(length..).unwrap_or(&[]);
    }
    longest
}

impl Iterator for WatchedPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for WatchedPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.pages.get_next_page()?;
        if let Some(page) = &page {
            self.check(page)?;
        }
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.pages.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        self.pages.at_record_boundary()
    }
}
