//! Shared memory of one block: bytes, race records, and asynchronous copies still in flight.
use super::access::Access;
use super::bytes::CheckedBytes;
use super::shadow::{Judge, Race, Shadow};
use crate::finding::{Checked, Fault, FindingKind};

/// Number of bytes that share the size of a granule.
const CHUNK: usize = 1024;

pub(crate) struct SharedMemory {
    bytes: CheckedBytes,
    shadows: Vec<Shadow>,
    /// For each 4 bytes, the number of asynchronous copies to them in flight.
    in_flight: Vec<u16>,
    any_in_flight: u32,
    length: usize,
}

impl SharedMemory {
    pub(crate) fn new(length: usize) -> Self {
        let mut memory = Self {
            bytes: CheckedBytes::new(0),
            shadows: Vec::new(),
            in_flight: Vec::new(),
            any_in_flight: 0,
            length: 0,
        };
        memory.reset(length);
        memory
    }

    /// Clears everything, as at the start of a block.
    pub(crate) fn reset(&mut self, length: usize) {
        let room = length.next_multiple_of(CHUNK);
        self.length = length;
        self.bytes.reset(room);
        self.shadows.iter_mut().for_each(Shadow::clear);
        self.shadows
            .resize_with(room / CHUNK, || Shadow::new(CHUNK));
        self.in_flight.clear();
        self.in_flight.resize(room / 4, 0);
        self.any_in_flight = 0;
    }

    /// Offset of an access that is in bounds and aligned.
    #[inline]
    pub(crate) fn locate(&self, address: u64, bytes: u64) -> Checked<usize> {
        if address & (bytes - 1) == 0
            && address < self.length as u64
            && self.length as u64 - address >= bytes
        {
            return Ok(address as usize);
        }
        Err(self.bad(address, bytes))
    }

    #[cold]
    fn bad(&self, address: u64, bytes: u64) -> Box<Fault> {
        let length = self.length;
        if address & (bytes - 1) != 0 {
            let message = format!("{bytes}-byte access at shared address {address:#x}");
            return Fault::new(FindingKind::Misaligned, message);
        }
        let message = format!("{bytes} bytes at shared address {address:#x} of {length} bytes");
        Fault::new(FindingKind::OutOfBounds, message)
    }

    fn words(offset: usize, bytes: usize) -> std::ops::Range<usize> {
        offset / 4..(offset + bytes).div_ceil(4)
    }

    /// Refuses accesses to bytes with an asynchronous copy in flight.
    #[inline]
    pub(crate) fn check_landed(&self, offset: usize, bytes: usize) -> Checked<()> {
        if self.any_in_flight == 0 {
            return Ok(());
        }
        if self.in_flight[Self::words(offset, bytes)]
            .iter()
            .all(|n| *n == 0)
        {
            return Ok(());
        }
        let message = format!(
            "shared bytes {offset:#x}..{:#x} are touched while a cp.async to them is in flight: \
             no cp.async.wait_group (with a barrier, if another thread issued it) comes before",
            offset + bytes
        );
        Err(Fault::new(FindingKind::MissingWait, message))
    }

    #[inline]
    pub(crate) fn check_written(&self, offset: usize, bytes: usize) -> Checked<()> {
        if self.bytes.is_written(offset, bytes) {
            return Ok(());
        }
        let message = format!(
            "shared bytes {offset:#x}..{:#x} were never written",
            offset + bytes
        );
        Err(Fault::new(FindingKind::UninitialisedRead, message))
    }

    #[inline]
    pub(crate) fn touch(
        &mut self,
        offset: usize,
        bytes: usize,
        now: Access,
        judge: &impl Judge,
    ) -> Result<(), Race> {
        self.shadows[offset / CHUNK].touch(offset % CHUNK, bytes, now, judge)
    }

    #[inline]
    pub(crate) fn get(&self, offset: usize, bytes: usize) -> u128 {
        self.bytes.get(offset, bytes)
    }

    #[inline]
    pub(crate) fn set(&mut self, offset: usize, bytes: usize, value: u128) {
        self.bytes.set(offset, bytes, value);
    }

    /// Records that an asynchronous copy to these bytes was issued.
    pub(crate) fn depart(&mut self, offset: usize, bytes: usize) {
        self.any_in_flight += 1;
        self.in_flight[Self::words(offset, bytes)]
            .iter_mut()
            .for_each(|n| *n += 1);
    }

    /// Records that the copy has completed.
    pub(crate) fn land(&mut self, offset: usize, bytes: usize) {
        self.any_in_flight -= 1;
        self.in_flight[Self::words(offset, bytes)]
            .iter_mut()
            .for_each(|n| *n -= 1);
    }
}
