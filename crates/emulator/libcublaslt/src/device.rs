//! Accesses device memory through the driver API, with copies in the caller's stream.
use crate::descriptors::{Handle, Layout, Type};
use crate::status::{Code, EXECUTION_FAILED, Status, refuse};
use half::{bf16, f16};
use libloading::{Library, Symbol};
use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

type ToHost = unsafe extern "C" fn(*mut c_void, u64, usize, Handle) -> c_int;
type ToDevice = unsafe extern "C" fn(u64, *const c_void, usize, Handle) -> c_int;

fn driver() -> Result<&'static Library, Code> {
    static DRIVER: OnceLock<Option<Library>> = OnceLock::new();
    // SAFETY: this is the stand-in libcuda, which is already loaded and has no initialisers.
    let driver = DRIVER.get_or_init(|| unsafe { Library::new("libcuda.so") }.ok());
    match driver {
        Some(driver) => Ok(driver),
        None => refuse(EXECUTION_FAILED, "no libcuda.so is loaded"),
    }
}

fn function<T>(name: &str) -> Result<Symbol<'static, T>, Code> {
    // SAFETY: the types above are those of the driver API.
    let function = unsafe { driver()?.get(name.as_bytes()) };
    function.or_else(|error| refuse(EXECUTION_FAILED, error))
}

fn done(what: &str, code: c_int) -> Status {
    match code {
        0 => Ok(()),
        _ => refuse(
            EXECUTION_FAILED,
            format_args!("{what}: code {code} of the driver"),
        ),
    }
}

/// A matrix on the device.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub name: &'a str,
    pub address: u64,
    pub layout: Layout,
    pub stream: Handle,
}

impl Place<'_> {
    /// Address of the first byte, and the address after the last.
    pub(crate) fn range(&self) -> (u64, u64) {
        let Layout {
            of,
            rows,
            columns,
            stride,
        } = self.layout;
        let elements = (columns - 1).saturating_mul(stride).saturating_add(rows);
        let bytes = elements.saturating_mul(of.bytes());
        (self.address, self.address.saturating_add(bytes))
    }

    /// Addresses and element numbers of ranges without gaps.
    fn stretches(&self) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
        let Layout {
            of,
            rows,
            columns,
            stride,
        } = self.layout;
        let (count, length) = match stride == rows {
            true => (1, rows * columns),
            false => (columns, rows),
        };
        let address = self.address;
        (0..count).map(move |i| {
            let start = (i * length) as usize;
            let at = address + i * stride * of.bytes();
            (at, start..start + length as usize)
        })
    }

    /// Reads the elements, column after column.
    pub(crate) fn read(&self) -> Result<Vec<f32>, Code> {
        let copy = function::<ToHost>("cuMemcpyDtoHAsync_v2")?;
        let size = self.layout.of.bytes() as usize;
        let mut bytes = vec![0u8; (self.layout.rows * self.layout.columns) as usize * size];
        for (address, range) in self.stretches() {
            let part = &mut bytes[range.start * size..range.end * size];
            // SAFETY: the driver writes as many bytes as the slice has.
            let code = unsafe { copy(part.as_mut_ptr().cast(), address, part.len(), self.stream) };
            done(self.name, code)?;
        }
        let pairs = || bytes.as_chunks::<2>().0.iter().copied();
        Ok(match self.layout.of {
            Type::F32 => {
                let words = bytes.as_chunks::<4>().0.iter().copied();
                words.map(f32::from_le_bytes).collect()
            }
            Type::BF16 => pairs().map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
            Type::F16 => pairs().map(|b| f16::from_le_bytes(b).to_f32()).collect(),
        })
    }

    /// Overwrites the elements, rounded to nearest.
    pub(crate) fn write(&self, values: &[f32]) -> Status {
        let values = values.iter().copied();
        let bytes: Vec<u8> = match self.layout.of {
            Type::F32 => values.flat_map(f32::to_le_bytes).collect(),
            Type::BF16 => values
                .flat_map(|v| bf16::from_f32(v).to_le_bytes())
                .collect(),
            Type::F16 => values
                .flat_map(|v| f16::from_f32(v).to_le_bytes())
                .collect(),
        };
        let size = self.layout.of.bytes() as usize;
        for (address, range) in self.stretches() {
            self.put(address, &bytes[range.start * size..range.end * size])?;
        }
        Ok(())
    }

    /// Overwrites bytes in the stream of this matrix.
    pub(crate) fn put(&self, address: u64, bytes: &[u8]) -> Status {
        let copy = function::<ToDevice>("cuMemcpyHtoDAsync_v2")?;
        // SAFETY: the driver reads as many bytes as the slice has, before it returns.
        let code = unsafe { copy(address, bytes.as_ptr().cast(), bytes.len(), self.stream) };
        done(self.name, code)
    }
}
