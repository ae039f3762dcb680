//! The innermost product: tiles of bf16, one product for one of bf16 and six for one of f32.

use super::split::{PLANE, SIDE};
use std::{arch::asm, mem::offset_of};

/// Largest number of rows and columns that one call computes.
pub(super) const BLOCK: usize = 2 * SIDE;

/// A block of the result.
#[repr(C, align(64))]
pub(super) struct Sums(pub(super) [[f32; BLOCK]; BLOCK]);

/// While this value lives, the tile registers of this thread have 16 rows of 64 bytes each.
pub(super) struct Tiles(());

#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static SHAPES: Shapes = {
    let mut shapes = Shapes {
        palette: 1,
        start_row: 0,
        reserved: [0; 14],
        row_bytes: [0; 16],
        rows: [0; 16],
    };
    let mut register = 0;
    while register < 8 {
        shapes.row_bytes[register] = 64;
        shapes.rows[register] = SIDE as u8;
        register += 1;
    }
    shapes
};

impl Tiles {
    /// # Safety
    /// The process must be allowed to use tiles.
    pub(super) unsafe fn new() -> Self {
        // SAFETY: the caller promises the permission; the compiler uses none of these registers.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const SHAPES, options(nostack)) };
        Self(())
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: `new` has loaded a configuration. Without one there is less state to save.
        unsafe { asm!("tilerelease", options(nomem, nostack)) };
    }
}

/// Number of elements that are prefetched for each part of `b` in a group.
pub(super) const AHEAD: usize = 4 * SIDE;

/// One or two panels of `a` and `b`.
#[repr(C)]
pub(super) struct Call {
    /// Number of groups of 32 steps in which `a` and `b` have one part.
    pub(super) half: usize,
    /// Number of later groups in which `a` has three parts and `b` has one.
    pub(super) single: usize,
    /// Number of later groups in which `a` and `b` have three parts.
    pub(super) triple: usize,
    /// First and second panel.
    pub(super) a: [*const f32; 2],
    pub(super) b: [*const f32; 2],
    /// Destination of the sums, and distance between rows in bytes.
    pub(super) sums: *mut f32,
    pub(super) row_bytes: usize,
    /// First line to prefetch, valid or not, and distance between lines in bytes: four pairs for
    /// each group.
    pub(super) next: *const f32,
    pub(super) next_bytes: usize,
    /// First of the consecutive lines, valid or not, that are prefetched into the second-level
    /// cache, and their distance in bytes.
    pub(super) ahead: *const f32,
    pub(super) ahead_bytes: usize,
}

/// Computes `sums[i, j] = Σ_p a[i, p] · b[p, j]` in all rows and columns of the panels.
///
/// # Safety
/// The panels and the memory for the sums must be valid.
pub(super) type Kernel = unsafe fn(&Tiles, &Call);

/// Emits the first instruction, or both.
macro_rules! of_panels {
    (1, $first:expr, $second:expr) => {
        $first
    };
    (2, $first:expr, $second:expr) => {
        concat!($first, $second)
    };
}

macro_rules! load_a {
    ($rows:tt, $plane:literal) => {
        of_panels!(
            $rows,
            concat!("tileloadd tmm4, [{a} + {s}*1 + ", $plane, "]\n"),
            concat!("tileloadd tmm5, [{a2} + {s}*1 + ", $plane, "]\n")
        )
    };
}

macro_rules! load_b {
    ($columns:tt, $plane:literal) => {
        of_panels!(
            $columns,
            concat!("tileloadd tmm6, [{b} + {s}*1 + ", $plane, "]\n"),
            concat!("tileloadd tmm7, [{b2} + {s}*1 + ", $plane, "]\n")
        )
    };
}

/// Emits an instruction for each tile of the result.
macro_rules! of_results {
    ($rows:tt, $columns:tt, $zero:literal, $one:literal, $two:literal, $three:literal) => {
        of_panels!(
            $rows,
            of_panels!($columns, $zero, $one),
            of_panels!($columns, $two, $three)
        )
    };
}

macro_rules! multiply {
    ($rows:tt, $columns:tt) => {
        of_results!(
            $rows,
            $columns,
            "tdpbf16ps tmm0, tmm4, tmm6\n",
            "tdpbf16ps tmm1, tmm4, tmm7\n",
            "tdpbf16ps tmm2, tmm5, tmm6\n",
            "tdpbf16ps tmm3, tmm5, tmm7\n"
        )
    };
}

macro_rules! store {
    ($rows:tt, $columns:tt) => {
        of_results!(
            $rows,
            $columns,
            "tilestored [{a} + {b}*1], tmm0\n",
            "tilestored [{a} + {b}*1 + 64], tmm1\n",
            "tilestored [{a2} + {b}*1], tmm2\n",
            "tilestored [{a2} + {b}*1 + 64], tmm3\n"
        )
    };
}

macro_rules! fetch_rows {
    () => {
        concat!(
            "prefetchw [{next}]\nprefetchw [{next} + 64]\n",
            "prefetchw [{next} + {apart}]\nprefetchw [{next} + {apart} + 64]\n",
            "lea {next}, [{next} + 2*{apart}]\n"
        )
    };
}

macro_rules! fetch_ahead {
    () => {
        concat!(
            "prefetcht1 [{ahead}]\nprefetcht1 [{ahead} + 64]\n",
            "prefetcht1 [{ahead} + 128]\nprefetcht1 [{ahead} + 192]\n",
            "prefetcht1 [{ahead} + {far}]\nprefetcht1 [{ahead} + {far} + 64]\n",
            "prefetcht1 [{ahead} + {far} + 128]\nprefetcht1 [{ahead} + {far} + 192]\n",
            "add {ahead}, 256\n"
        )
    };
}

/// Small products come first; one operand changes at a time.
macro_rules! kernel {
    ($name:ident, $rows:tt, $columns:tt) => {
        unsafe fn $name(_: &Tiles, call: &Call) {
            const { assert!(PLANE * size_of::<f32>() == 1024 && AHEAD * size_of::<f32>() == 256) };
            // SAFETY: the caller promises the panels; prefetches accept any address.
            unsafe {
                asm!(
                    "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                    "mov {count}, [{call} + {half}]",
                    "test {count}, {count}",
                    "jz 7f",
                    "6:",
                    concat!(load_a!($rows, 0), load_b!($columns, 0), multiply!($rows, $columns)),
                    fetch_rows!(),
                    fetch_ahead!(),
                    "add {a}, 1024", "add {a2}, 1024", "add {b}, 1024", "add {b2}, 1024",
                    "dec {count}",
                    "jnz 6b",
                    "7:",
                    "mov {count}, [{call} + {single}]",
                    "test {count}, {count}",
                    "jz 3f",
                    "2:",
                    concat!(load_a!($rows, 2048), load_b!($columns, 0), multiply!($rows, $columns)),
                    fetch_rows!(),
                    concat!(load_a!($rows, 1024), multiply!($rows, $columns)),
                    fetch_rows!(),
                    fetch_ahead!(),
                    concat!(load_a!($rows, 0), multiply!($rows, $columns)),
                    "add {a}, 3072", "add {a2}, 3072", "add {b}, 1024", "add {b2}, 1024",
                    "dec {count}",
                    "jnz 2b",
                    "3:",
                    "mov {count}, [{call} + {triple}]",
                    "test {count}, {count}",
                    "jz 5f",
                    "4:",
                    concat!(load_a!($rows, 2048), load_b!($columns, 0), multiply!($rows, $columns)),
                    fetch_rows!(),
                    concat!(load_a!($rows, 1024), multiply!($rows, $columns)),
                    fetch_ahead!(),
                    concat!(load_b!($columns, 1024), multiply!($rows, $columns)),
                    fetch_rows!(),
                    fetch_ahead!(),
                    concat!(load_a!($rows, 0), multiply!($rows, $columns)),
                    fetch_ahead!(),
                    concat!(load_b!($columns, 2048), multiply!($rows, $columns)),
                    concat!(load_b!($columns, 0), multiply!($rows, $columns)),
                    "add {a}, 3072", "add {a2}, 3072", "add {b}, 3072", "add {b2}, 3072",
                    "dec {count}",
                    "jnz 4b",
                    "5:",
                    "mov {a}, [{call} + {sums}]",
                    "mov {b}, [{call} + {row_bytes}]",
                    "mov {a2}, {b}",
                    "shl {a2}, 4",
                    "add {a2}, {a}",
                    store!($rows, $columns),
                    call = in(reg) call,
                    half = const offset_of!(Call, half),
                    single = const offset_of!(Call, single),
                    triple = const offset_of!(Call, triple),
                    sums = const offset_of!(Call, sums),
                    row_bytes = const offset_of!(Call, row_bytes),
                    a = inout(reg) call.a[0] => _,
                    a2 = inout(reg) call.a[1] => _,
                    b = inout(reg) call.b[0] => _,
                    b2 = inout(reg) call.b[1] => _,
                    s = in(reg) 64usize,
                    count = out(reg) _,
                    next = inout(reg) call.next => _,
                    apart = in(reg) call.next_bytes,
                    ahead = inout(reg) call.ahead => _,
                    far = in(reg) call.ahead_bytes,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

kernel!(one_by_one, 1, 1);
kernel!(one_by_two, 1, 2);
kernel!(two_by_one, 2, 1);
kernel!(two_by_two, 2, 2);

/// Returns the kernel for this number of panels (one or two) of `a` and `b`.
pub(super) fn kernel(a_panels: usize, b_panels: usize) -> Kernel {
    match (a_panels, b_panels) {
        (1, 1) => one_by_one,
        (1, 2) => one_by_two,
        (2, 1) => two_by_one,
        _ => two_by_two,
    }
}
