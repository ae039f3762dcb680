//! Allocations, copies and fills.
use crate::context::memory_bytes;
use crate::driver::{Handle, driver};
use crate::pointers::{put, with_bytes, with_bytes_mut};
use crate::status::{INVALID_VALUE, OUT_OF_MEMORY, Status, api, refuse, report};
use std::alloc::Layout;
use std::collections::HashMap;
use std::ffi::{c_int, c_uint, c_void};
use std::sync::{LazyLock, Mutex};
use tightrope_emulator::{Finding, Order};

/// Page-locked host memory by address, with the layout that it was allocated with.
static PINNED: LazyLock<Mutex<HashMap<usize, Layout>>> = LazyLock::new(Mutex::default);

fn found(result: Result<(), Box<Finding>>) -> Status {
    result.map_err(|finding| report(&finding))
}

fn allocate(out: *mut u64, bytes: usize) -> Status {
    let mut driver = driver();
    if bytes == 0 {
        return Err(INVALID_VALUE);
    }
    if driver.allocated.saturating_add(bytes as u64) > memory_bytes() {
        return Err(OUT_OF_MEMORY);
    }
    let address = driver
        .memory
        .allocate(bytes as u64, "")
        .map_err(|error| refuse(&error))?;
    driver.allocated += bytes as u64;
    put(out, address)
}

fn free(address: u64, order: Option<&Order>) -> Status {
    let mut driver = driver();
    let bytes = driver
        .memory
        .allocation_at(address)
        .map_or(0, |allocation| allocation.bytes);
    found(driver.memory.free(address, order))?;
    driver.allocated -= bytes;
    Ok(())
}

fn to_device(target: u64, source: *const c_void, bytes: usize, order: &Order) -> Status {
    found(with_bytes(source, bytes, |bytes| {
        driver().memory.write(target, bytes, order)
    })?)
}

fn to_host(target: *mut c_void, source: u64, bytes: usize, order: &Order) -> Status {
    found(with_bytes_mut(target, bytes, |bytes| {
        driver().memory.read(source, bytes, order)
    })?)
}

fn fill(target: u64, element: &[u8], count: usize, order: &Order) -> Status {
    if let [value] = element {
        return found(driver().memory.fill(target, *value, count as u64, order));
    }
    let first = element[0];
    if element.iter().all(|byte| *byte == first) {
        let bytes = (count * element.len()) as u64;
        return found(driver().memory.fill(target, first, bytes, order));
    }
    found(driver().memory.write(target, &element.repeat(count), order))
}

/// Runs an operation of a stream.
fn issued(stream: Handle, f: impl FnOnce(&Order) -> Status) -> Status {
    let order = driver().issue(stream)?;
    f(&order)
}

/// Runs an operation that the host waits for.
fn waited(f: impl FnOnce(&Order) -> Status) -> Status {
    let order = driver().synchronous(|_, order| order.clone())?;
    f(&order)
}

api! {
    fn cuMemAlloc_v2(out: *mut u64, bytes: usize) {
        allocate(out, bytes)
    }
    fn cuMemAllocAsync(out: *mut u64, bytes: usize, _stream: Handle) {
        allocate(out, bytes)
    }
    fn cuMemFree_v2(address: u64) {
        // The call waits for the whole device.
        driver().streams.synchronize_all();
        free(address, None)
    }
    fn cuMemFreeAsync(address: u64, stream: Handle) {
        issued(stream, |order| free(address, Some(order)))
    }
    fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) {
        put(free, (memory_bytes() - driver().allocated) as usize)?;
        put(total, memory_bytes() as usize)
    }
    fn cuMemcpyHtoD_v2(target: u64, source: *const c_void, bytes: usize) {
        waited(|order| to_device(target, source, bytes, order))
    }
    fn cuMemcpyHtoDAsync_v2(target: u64, source: *const c_void, bytes: usize, stream: Handle) {
        issued(stream, |order| to_device(target, source, bytes, order))
    }
    fn cuMemcpyDtoH_v2(target: *mut c_void, source: u64, bytes: usize) {
        waited(|order| to_host(target, source, bytes, order))
    }
    fn cuMemcpyDtoHAsync_v2(target: *mut c_void, source: u64, bytes: usize, stream: Handle) {
        issued(stream, |order| to_host(target, source, bytes, order))
    }
    fn cuMemcpyDtoD_v2(target: u64, source: u64, bytes: usize) {
        waited(|order| found(driver().memory.copy(target, source, bytes as u64, order)))
    }
    fn cuMemcpyDtoDAsync_v2(target: u64, source: u64, bytes: usize, stream: Handle) {
        issued(stream, |order| found(driver().memory.copy(target, source, bytes as u64, order)))
    }
    fn cuMemsetD8_v2(target: u64, value: u8, count: usize) {
        waited(|order| fill(target, &[value], count, order))
    }
    fn cuMemsetD8Async(target: u64, value: u8, count: usize, stream: Handle) {
        issued(stream, |order| fill(target, &[value], count, order))
    }
    fn cuMemsetD16Async(target: u64, value: u16, count: usize, stream: Handle) {
        issued(stream, |order| fill(target, &value.to_le_bytes(), count, order))
    }
    fn cuMemsetD32Async(target: u64, value: c_uint, count: usize, stream: Handle) {
        issued(stream, |order| fill(target, &value.to_le_bytes(), count, order))
    }
    fn cuMemHostAlloc(out: *mut *mut c_void, bytes: usize, _flags: c_uint) {
        let layout = Layout::from_size_align(bytes.max(1), 4096).map_err(|_| INVALID_VALUE)?;
        // SAFETY: the layout has a size of at least one.
        let pointer = unsafe { std::alloc::alloc_zeroed(layout) };
        if pointer.is_null() {
            return Err(OUT_OF_MEMORY);
        }
        PINNED.lock().unwrap_or_else(|e| e.into_inner()).insert(pointer as usize, layout);
        put(out, pointer.cast())
    }
    fn cuMemFreeHost(pointer: *mut c_void) {
        let layout = PINNED.lock().unwrap_or_else(|e| e.into_inner()).remove(&(pointer as usize));
        let layout = layout.ok_or(INVALID_VALUE)?;
        // SAFETY: `PINNED` held the pointer, so it was allocated with this layout and not freed.
        unsafe { std::alloc::dealloc(pointer.cast(), layout) };
        Ok(())
    }
    fn cuDeviceGetDefaultMemPool(out: *mut Handle, _device: c_int) {
        put(out, 0x200 as Handle)
    }
    fn cuDeviceGetMemPool(out: *mut Handle, _device: c_int) {
        put(out, 0x200 as Handle)
    }
    fn cuMemPoolSetAttribute(_pool: Handle, _attribute: c_int, _value: *mut c_void) {
        Ok(())
    }
    fn cuMemPoolTrimTo(_pool: Handle, _keep: usize) {
        Ok(())
    }
}
