//! One allocation of device memory, with pages that are created when they are touched.
use super::access::Access;
use super::bytes::CheckedBytes;
use super::order::Order;
use super::shadow::{Judge, Shadow};
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock};

/// Size of a page in bytes.
pub(super) const PAGE: u64 = 16 * 1024;

/// Description of an allocation, for findings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AllocationInfo {
    /// Address of the first byte.
    pub base: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// Label that the owner gave it; may be empty.
    pub label: String,
}

impl fmt::Display for AllocationInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "allocation {:#x} of {} bytes", self.base, self.bytes)?;
        if self.label.is_empty() {
            Ok(())
        } else {
            write!(f, " ({})", self.label)
        }
    }
}

/// A page: bytes, and the record of accesses to them.
pub(crate) struct Page {
    pub bytes: CheckedBytes,
    pub shadow: Shadow,
}

pub(super) struct Allocation {
    pub info: AllocationInfo,
    pub is_constant: bool,
    pages: Box<[OnceLock<Box<Mutex<Page>>>]>,
    /// A fill of the whole allocation, which applies to pages that are not yet touched.
    background: Option<(u8, Access)>,
    last_use: AtomicU32,
    /// For each stream, its last operation that got this allocation as an argument.
    pub used_by: Mutex<Vec<u32>>,
}

impl Allocation {
    pub(super) fn new(info: AllocationInfo, is_constant: bool) -> Self {
        let pages = (0..info.bytes.div_ceil(PAGE))
            .map(|_| OnceLock::new())
            .collect();
        Self {
            info,
            is_constant,
            pages,
            background: None,
            last_use: AtomicU32::new(0),
            used_by: Mutex::default(),
        }
    }

    /// The page that holds the byte at `offset`, locked.
    pub(super) fn page(&self, offset: u64) -> MutexGuard<'_, Page> {
        let index = offset / PAGE;
        let page = self.pages[index as usize].get_or_init(|| {
            let bytes = PAGE.min(self.info.bytes - index * PAGE) as usize;
            // The size is rounded up to whole granules and whole words of "written" bits.
            let room = bytes.next_multiple_of(64);
            let mut page = Page {
                bytes: CheckedBytes::new(room),
                shadow: Shadow::new(room),
            };
            if let Some((value, access)) = self.background {
                page.bytes.fill(0, bytes, value);
                let recorded = page.shadow.touch_range(0, bytes, access, &Anything);
                debug_assert!(recorded.is_ok(), "a new shadow holds nothing to race with");
            }
            Box::new(Mutex::new(page))
        });
        page.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Number of existing pages.
    pub(super) fn resident_pages(&self) -> usize {
        self.pages
            .iter()
            .filter(|page| page.get().is_some())
            .count()
    }

    /// Splits a range into parts that each lie in one page, with offset and length.
    pub(super) fn pieces(offset: u64, bytes: u64) -> impl Iterator<Item = (u64, usize)> {
        let end = offset + bytes;
        let mut at = offset;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let count = (PAGE - at % PAGE).min(end - at);
            let piece = (at, count as usize);
            at += count;
            Some(piece)
        })
    }

    /// Fills the whole allocation without storing the bytes: existing pages are dropped.
    pub(super) fn set_background(&mut self, value: u8, access: Access) {
        self.background = Some((value, access));
        self.pages.iter_mut().for_each(|page| drop(page.take()));
    }

    /// Offsets of existing pages.
    pub(super) fn resident(&self) -> impl Iterator<Item = u64> {
        let exists = |(i, page): (usize, &OnceLock<_>)| page.get().map(|_| i as u64 * PAGE);
        self.pages.iter().enumerate().filter_map(exists)
    }

    pub(super) fn note_use(&self, order: &Order) {
        if self.last_use.load(Relaxed) == order.operation {
            return;
        }
        self.last_use.store(order.operation, Relaxed);
        let stream = Order::stream_of(order.operation);
        let mut used = self
            .used_by
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if used.len() <= stream {
            used.resize(stream + 1, 0);
        }
        used[stream] = Order::sequence_of(order.operation);
    }
}

/// Orders everything.
struct Anything;

impl Judge for Anything {
    fn is_before(&self, _: &Access) -> bool {
        true
    }
}
