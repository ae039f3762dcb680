//! A stand-in `libcuda.so`: the part of the CUDA driver API that `cudarc` uses, implemented by the
//! emulator. Names, signatures and error codes are those of the driver API.
#![allow(
    non_snake_case,
    reason = "the file is named as the library that it stands in for"
)]

mod context;
mod driver;
mod events;
mod functions;
mod memory;
mod pointers;
mod status;
