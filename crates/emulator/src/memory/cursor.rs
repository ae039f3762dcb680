//! Accesses device memory for one warp instruction: the page of the last lane stays locked for the
//! next one, so that a coalesced access locks once.
use super::allocation::{Allocation, AllocationInfo, PAGE, Page};
use super::device::DeviceMemory;
use super::order::Order;
use crate::finding::{Checked, Fault, FindingKind};
use std::sync::MutexGuard;

pub(crate) struct DeviceCursor<'m> {
    memory: &'m DeviceMemory,
    order: &'m Order,
    current: Option<Current<'m>>,
}

struct Current<'m> {
    allocation: &'m Allocation,
    /// First address of the page, and number of bytes of the allocation from there on, at most a
    /// page.
    start: u64,
    bytes: u64,
    page: MutexGuard<'m, Page>,
}

impl<'m> DeviceCursor<'m> {
    pub(crate) fn new(memory: &'m DeviceMemory, order: &'m Order) -> Self {
        Self {
            memory,
            order,
            current: None,
        }
    }

    /// Page and offset of `bytes` bytes (1 to 16, a power of two) at `address`.
    #[inline]
    pub(crate) fn locate(&mut self, address: u64, bytes: u64) -> Checked<(&mut Page, usize)> {
        if address & (bytes - 1) != 0 {
            return Err(self.misaligned(address, bytes));
        }
        let fits = |c: &Current<'_>| {
            let at = address.wrapping_sub(c.start);
            at < c.bytes && c.bytes - at >= bytes
        };
        if !self.current.as_ref().is_some_and(fits) {
            // The page is unlocked before another is locked: two warps must never hold one page
            // each and wait.
            self.current = None;
            let (allocation, offset) = self.memory.find(address, bytes)?;
            let first = offset - offset % PAGE;
            allocation.note_use(self.order);
            self.current = Some(Current {
                allocation,
                start: allocation.info.base + first,
                bytes: PAGE.min(allocation.info.bytes - first),
                page: allocation.page(offset),
            });
        }
        match &mut self.current {
            Some(current) => Ok((&mut current.page, (address - current.start) as usize)),
            None => unreachable!("set above"),
        }
    }

    /// Refuses writes to constant memory. The page must have been located.
    pub(crate) fn check_writable(&self) -> Checked<()> {
        match &self.current {
            Some(c) if c.allocation.is_constant => Err(Fault::new(
                FindingKind::ReadOnly,
                "write to constant memory",
            )
            .of(c.allocation.info.clone())),
            _ => Ok(()),
        }
    }

    /// The allocation that was located last.
    pub(crate) fn allocation(&self) -> Option<AllocationInfo> {
        self.current.as_ref().map(|c| c.allocation.info.clone())
    }

    #[cold]
    fn misaligned(&self, address: u64, bytes: u64) -> Box<Fault> {
        let message = format!("{bytes}-byte access at {address:#x}, which is no multiple of it");
        let fault = Fault::new(FindingKind::Misaligned, message);
        match self.memory.find(address, 1) {
            Ok((allocation, _)) => fault.of(allocation.info.clone()),
            Err(_) => fault,
        }
    }
}
