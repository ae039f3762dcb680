//! Executes PTX on the CPU and reports what a GPU would only corrupt.
//!
//! ```
//! use tightrope_emulator::{DeviceMemory, LaunchConfig, Module, Order};
//! let ptx = "
//! .version 9.0
//! .target sm_80
//! .address_size 64
//! .visible .entry double_all(.param .u64 data)
//! {
//!     .reg .b32 %r<4>;
//!     .reg .b64 %rd<4>;
//!     ld.param.u64 %rd1, [data];
//!     mov.u32 %r1, %tid.x;
//!     mul.wide.u32 %rd2, %r1, 4;
//!     add.s64 %rd3, %rd1, %rd2;
//!     ld.global.u32 %r2, [%rd3];
//!     add.s32 %r3, %r2, %r2;
//!     st.global.u32 [%rd3], %r3;
//!     ret;
//! }";
//! let mut memory = DeviceMemory::new();
//! let module = Module::load(ptx, &mut memory)?;
//! let data = memory.allocate(64 * 4, "data")?;
//! let ones: Vec<u8> = [1, 0, 0, 0].repeat(64);
//! memory.write(data, &ones, &Order::sequential(1))?;
//! let config = LaunchConfig::new([1, 1, 1], [64, 1, 1]);
//! let order = Order::sequential(2);
//! let report = module.launch("double_all", &memory, &order, &data.to_le_bytes(), &config)?;
//! assert!(report.findings.is_empty());
//! let mut out = [0; 4];
//! memory.read(data, &mut out, &Order::sequential(3))?;
//! assert_eq!(out, [2, 0, 0, 0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(unsafe_code)]

mod counters;
mod decode;
mod error;
mod execute;
mod finding;
mod lanes;
mod memory;
mod module;
mod op;
pub mod ptx;
pub mod report;
pub mod roofline;
mod streams;

pub use counters::{CLASSES, Counters};
pub use error::{EmulatorError, PtxError};
pub use execute::{BlockSelection, Checks, LaunchConfig, LaunchReport};
pub use finding::{Finding, FindingKind, Place};
pub use memory::{AllocationInfo, DeviceMemory, Order};
pub use module::Module;
pub use op::InstructionClass;
pub use streams::{Event, Streams};
