//! A stand-in `libcublasLt.so`: it has the calls of cuBLASLt that multiply matrices, and computes
//! them on the CPU in the memory of the stand-in `libcuda.so`. Names, signatures and codes are
//! those of cuBLASLt.
#![allow(
    non_snake_case,
    reason = "the file is named as the library that it stands in for"
)]

mod algorithm;
mod descriptors;
mod device;
mod pointers;
mod product;
mod status;
