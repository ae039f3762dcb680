//! Streams and events.
use crate::driver::{Driver, Handle, driver};
use crate::pointers::put;
use crate::status::{INVALID_HANDLE, NOT_READY, api, refuse};
use std::ffi::{c_int, c_uint};
use std::time::Instant;

const NON_BLOCKING: c_uint = 1;

fn create(out: *mut Handle, flags: c_uint) -> crate::status::Status {
    let stream = driver()
        .streams
        .create(flags & NON_BLOCKING == 0)
        .map_err(|error| refuse(&error))?;
    put(out, Driver::stream_handle(stream))
}

fn elapsed(out: *mut f32, start: Handle, end: Handle) -> crate::status::Status {
    let driver = driver();
    let time = |event: Handle| match driver.events.get(&(event as u64)) {
        Some(Some((_, time))) => Ok(*time),
        Some(None) => Err(NOT_READY),
        None => Err(INVALID_HANDLE),
    };
    let (start, end) = (time(start)?, time(end)?);
    put(
        out,
        end.saturating_duration_since(start).as_secs_f32() * 1e3,
    )
}

api! {
    fn cuStreamCreate(out: *mut Handle, flags: c_uint) {
        create(out, flags)
    }
    fn cuStreamCreateWithPriority(out: *mut Handle, flags: c_uint, _priority: c_int) {
        create(out, flags)
    }
    fn cuStreamDestroy_v2(stream: Handle) {
        let mut driver = driver();
        let stream = driver.stream(stream)?;
        driver.streams.destroy(stream);
        Ok(())
    }
    fn cuStreamSynchronize(stream: Handle) {
        let mut driver = driver();
        let stream = driver.stream(stream)?;
        driver.streams.synchronize(stream);
        Ok(())
    }
    fn cuStreamQuery(stream: Handle) {
        let mut driver = driver();
        let stream = driver.stream(stream)?;
        driver.streams.synchronize(stream);
        Ok(())
    }
    fn cuStreamIsCapturing(_stream: Handle, out: *mut c_int) {
        put(out, 0)
    }
    fn cuStreamWaitEvent(stream: Handle, event: Handle, _flags: c_uint) {
        let mut driver = driver();
        let stream = driver.stream(stream)?;
        let event = driver.events.get(&(event as u64)).cloned().ok_or(INVALID_HANDLE)?;
        // An event that was never recorded does not block.
        if let Some((event, _)) = event {
            driver.streams.wait(stream, &event);
        }
        Ok(())
    }
    fn cuEventCreate(out: *mut Handle, _flags: c_uint) {
        let mut driver = driver();
        let handle = driver.handle();
        driver.events.insert(handle, None);
        put(out, handle as Handle)
    }
    fn cuEventDestroy_v2(event: Handle) {
        driver().events.remove(&(event as u64)).map(|_| ()).ok_or(INVALID_HANDLE)
    }
    fn cuEventRecord(event: Handle, stream: Handle) {
        let mut driver = driver();
        let stream = driver.stream(stream)?;
        let recorded = driver.streams.record(stream);
        let slot = driver.events.get_mut(&(event as u64)).ok_or(INVALID_HANDLE)?;
        *slot = Some((recorded, Instant::now()));
        Ok(())
    }
    fn cuEventSynchronize(event: Handle) {
        let mut driver = driver();
        let event = driver.events.get(&(event as u64)).cloned().ok_or(INVALID_HANDLE)?;
        if let Some((event, _)) = event {
            driver.streams.synchronize_event(&event);
        }
        Ok(())
    }
    fn cuEventQuery(event: Handle) {
        cuEventSynchronize(event);
        Ok(())
    }
    fn cuEventElapsedTime(out: *mut f32, start: Handle, end: Handle) {
        elapsed(out, start, end)
    }
    fn cuEventElapsedTime_v2(out: *mut f32, start: Handle, end: Handle) {
        elapsed(out, start, end)
    }
}
