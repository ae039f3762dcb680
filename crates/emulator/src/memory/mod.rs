//! Memory with checks: device allocations in a sparse address space, shared and local memory.
mod access;
mod allocation;
mod bytes;
mod cursor;
mod device;
mod order;
mod shadow;
mod shared;

pub use allocation::AllocationInfo;
pub use device::DeviceMemory;
pub use order::Order;

pub(crate) use access::{Access, Kind, Scope};
pub(crate) use bytes::CheckedBytes;
pub(crate) use cursor::DeviceCursor;
pub(crate) use device::dependency;
pub(crate) use order::{MOST_OPERATIONS, MOST_STREAMS};
pub(crate) use shadow::{Judge, Race};
pub(crate) use shared::SharedMemory;

/// Generic addresses from here on are shared memory of the block that uses them.
pub(crate) const SHARED_WINDOW: u64 = 0x8000_0000_0000_0000;
/// Generic addresses from here on are local memory of the thread that uses them.
pub(crate) const LOCAL_WINDOW: u64 = 0x9000_0000_0000_0000;
/// Generic addresses from here on are the parameters of the kernel.
pub(crate) const PARAM_WINDOW: u64 = 0xa000_0000_0000_0000;
/// The end of the last window.
pub(crate) const WINDOWS_END: u64 = 0xb000_0000_0000_0000;
